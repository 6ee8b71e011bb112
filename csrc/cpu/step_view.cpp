#include "cpu/step_view.h"

#include <algorithm>
#include <array>

namespace imagen_fast {

namespace {

constexpr std::int64_t groups(std::int64_t n, std::int64_t of) { return (n + of - 1) / of; }

using Masks = std::array<std::uint32_t, BLOCK_KEYS>;

// The blocks of a grid, row by row.
struct Blocks {
    Window window;
    std::int64_t height, width;

    explicit Blocks(const Window& given) : window(simplified(given)) {
        height = window.height == 1 ? 1 : 4;
        width = BLOCK_KEYS / height;
    }

    std::int64_t across() const { return groups(window.width, width); }
    std::int64_t down() const { return groups(window.height, height); }

    Pixel pixel(std::int64_t place) const {
        return {static_cast<std::int32_t>(place), static_cast<std::int32_t>(place / window.width),
                static_cast<std::int32_t>(place % window.width)};
    }
    std::int64_t slot(const Pixel& p) const {
        return (p.row / height * across() + p.column / width) * BLOCK_KEYS + p.row % height * width +
               p.column % width;
    }
    Box box(std::int64_t row, std::int64_t column) const {
        return {row * height, column * width, std::min(window.height, (row + 1) * height) - 1,
                std::min(window.width, (column + 1) * width) - 1};
    }
    // Which of some tokens see each pixel of a block.
    Masks seen(const Box& keys, const Pixel* tokens, std::int64_t count) const {
        Masks masks{};
        for (std::int64_t y = keys.top; y <= keys.bottom; ++y)
            for (std::int64_t x = keys.left; x <= keys.right; ++x) {
                const Pixel key{static_cast<std::int32_t>(y * window.width + x), static_cast<std::int32_t>(y),
                                static_cast<std::int32_t>(x)};
                std::uint32_t& bits = masks[(y - keys.top) * width + x - keys.left];
                for (std::int64_t l = 0; l < count; ++l)
                    bits |= std::uint32_t(sees(window, tokens[l], key)) << l;
            }
        return masks;
    }
};

Box around(const Pixel* pixels, std::int64_t count) {
    Box box{pixels->row, pixels->column, pixels->row, pixels->column};
    for (const Pixel* p = pixels + 1; p != pixels + count; ++p) {
        box.top = std::min<std::int64_t>(box.top, p->row);
        box.bottom = std::max<std::int64_t>(box.bottom, p->row);
        box.left = std::min<std::int64_t>(box.left, p->column);
        box.right = std::max<std::int64_t>(box.right, p->column);
    }
    return box;
}

}  // namespace

std::int64_t cache_blocks(const Window& window) {
    const Blocks grid(window);
    return (grid.down() * grid.across() + 1) / 2 * 2;
}

StepView::StepView(const Window& window, const std::vector<std::int64_t>& places) : group_blocks_{0} {
    const Blocks grid(window);
    std::vector<Pixel> pixels;
    for (const std::int64_t place : places) {
        pixels.push_back(grid.pixel(place));
        slots_.push_back(grid.slot(pixels.back()));
    }
    const std::int64_t tokens = static_cast<std::int64_t>(pixels.size());
    for (std::int64_t first = 0; first < tokens; first += GROUP) {
        const Pixel* const group = pixels.data() + first;
        const std::int64_t count = std::min(GROUP, tokens - first);
        const Box queries = around(group, count);
        const std::size_t before = blocks_.size();
        for (std::int64_t row = 0; row < grid.down(); ++row)
            for (std::int64_t column = 0; column < grid.across(); ++column) {
                const Box keys = grid.box(row, column);
                if (!some_see(grid.window, queries, keys)) continue;
                const std::int64_t number = row * grid.across() + column;
                if (keys.pixels() == BLOCK_KEYS && all_see(grid.window, queries, keys)) {
                    blocks_.push_back({number, -1});
                    continue;
                }
                const Masks masks = grid.seen(keys, group, count);
                if (!std::any_of(masks.begin(), masks.end(), [](std::uint32_t bits) { return bits; }))
                    continue;
                blocks_.push_back({number, static_cast<std::int64_t>(masks_.size())});
                masks_.insert(masks_.end(), masks.begin(), masks.end());
            }
        if ((blocks_.size() - before) % 2) {
            blocks_.push_back({blocks_.back().number, static_cast<std::int64_t>(masks_.size())});
            masks_.resize(masks_.size() + BLOCK_KEYS);
        }
        const std::int64_t seen = static_cast<std::int64_t>(blocks_.size() - before);
        pairs_ += count * seen;
        most_ = std::max(most_, seen);
        group_blocks_.push_back(static_cast<std::int64_t>(blocks_.size()));
    }
}

Step StepView::step() const {
    return {static_cast<std::int64_t>(slots_.size()),
            slots_.data(),
            blocks_.data(),
            group_blocks_.data(),
            masks_.data(),
            pairs_,
            most_};
}

}  // namespace imagen_fast
