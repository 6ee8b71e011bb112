#include "cpu/causal_keys.h"

#include <algorithm>

namespace imagen_fast {

namespace {

// Keys are taken or left so many at a time: as many rows as the attention kernels multiply at once.
constexpr std::int64_t PART = 8;

constexpr std::int64_t up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to; }

// Where every earlier pixel is seen, rows and columns do not matter.
Window simplified(const Window& w) {
    if (w.above < w.height - 1 || w.left < w.width - 1 || w.right < w.width - 1) return w;
    const std::int64_t pixels = w.height * w.width;
    return {1, pixels, 0, pixels, 0, w.prefix};
}

// Pixels from (top, left) to (bottom, right), both of them in it.
struct Box {
    std::int64_t top, left, bottom, right;

    std::int64_t pixels() const { return (bottom - top + 1) * (right - left + 1); }
};

// Tiles of the grid, row by row, and their parts likewise.
struct Tiling {
    Window window;
    std::int64_t height, width, part_height, part_width;

    Tiling(const Window& window, std::int64_t height, std::int64_t width)
        : window(window), height(height), width(width) {
        part_width = std::min<std::int64_t>(width, 4);
        part_height = std::min(PART / part_width, height);
        part_width = PART / part_height;
    }

    std::int64_t across() const { return up(window.width, width); }
    std::int64_t tiles() const { return up(window.height, height) * across(); }
    std::int64_t parts_of_a_tile() const { return height * width / PART; }

    Box tile(std::int64_t number) const {
        return clipped(number / across() * height, number % across() * width, height, width);
    }
    Box part(std::int64_t number) const {
        const Box whole = tile(number / parts_of_a_tile());
        const std::int64_t i = number % parts_of_a_tile(), in_a_row = width / part_width;
        return clipped(whole.top + i / in_a_row * part_height, whole.left + i % in_a_row * part_width,
                       part_height, part_width);
    }

    // About how many parts the tiles see together.
    std::int64_t cost() const {
        std::int64_t rows = 0, columns = 0;
        for (std::int64_t top = 0; top < window.height; top += height) {
            const std::int64_t last = std::min(window.height, top + height) - 1;
            rows += last / part_height - std::max<std::int64_t>(0, top - window.above) / part_height + 1;
        }
        for (std::int64_t left = 0; left < window.width; left += width) {
            const std::int64_t last = std::min(window.width, left + width + window.right) - 1;
            columns += last / part_width - std::max<std::int64_t>(0, left - window.left) / part_width + 1;
        }
        return rows * columns;
    }

private:
    Box clipped(std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) const {
        return {top, left, std::min(window.height, top + height) - 1,
                std::min(window.width, left + width) - 1};
    }
};

// The cheapest shape of tiles of `block` pixels; of equals the widest.
Tiling tiling(const Window& window, std::int64_t block) {
    Tiling best(window, 1, block);
    for (std::int64_t height = 2; height <= block; height *= 2) {
        const Tiling other(window, height, block / height);
        if (other.cost() < best.cost()) best = other;
    }
    return best;
}

// Whether some query may see some key; a few are let through of which none does.
bool some_see(const Window& w, const Box& queries, const Box& keys) {
    if (keys.pixels() <= 0) return false;
    if (keys.top * w.width + keys.left < w.prefix) return true;
    return keys.top <= queries.bottom && keys.bottom >= queries.top - w.above &&
           keys.left <= queries.right + w.right && keys.right >= queries.left - w.left;
}

bool all_see(const Window& w, const Box& queries, const Box& keys) {
    if (keys.pixels() < PART) return false;
    if (keys.bottom * w.width + keys.right < w.prefix) return true;
    const bool before =
        keys.bottom < queries.top || (keys.bottom == queries.top && keys.right <= queries.left);
    return before && keys.top >= queries.bottom - w.above && keys.right <= queries.left + w.right &&
           keys.left >= queries.right - w.left;
}

struct Pixel {
    std::int32_t number, row, column;  // number -1: none
};

bool sees(const Window& w, const Pixel& query, const Pixel& key) {
    const std::int32_t along = query.column - key.column;
    const bool near = query.row - key.row <= w.above && along <= w.left && -along <= w.right;
    return (key.number <= query.number && near) || key.number < w.prefix;
}

// A query that does not exist sees every key that does: its sums are then finite.
std::uint32_t mask(const Window& w, const Pixel* queries, std::int64_t block, const Pixel& key) {
    std::uint32_t bits = 0;
    if (key.number < 0) return bits;
    for (std::int64_t l = 0; l < block; ++l)
        bits |= std::uint32_t(queries[l].number < 0 || sees(w, queries[l], key)) << l;
    return bits;
}

std::vector<Pixel> in_order(const Tiling& tiling) {
    std::vector<Pixel> pixels;
    const Window& w = tiling.window;
    for (std::int64_t part = 0; part < tiling.tiles() * tiling.parts_of_a_tile(); ++part) {
        const Box box = tiling.part(part);
        for (std::int64_t i = 0; i < PART; ++i) {
            const std::int64_t y = box.top + i / tiling.part_width, x = box.left + i % tiling.part_width;
            const bool exists = y < w.height && x < w.width;
            pixels.push_back({static_cast<std::int32_t>(exists ? y * w.width + x : -1),
                              static_cast<std::int32_t>(y), static_cast<std::int32_t>(x)});
        }
    }
    return pixels;
}

// Neighbouring blocks of a share, as bits, in runs of their queries.
std::vector<Run> query_runs(std::uint32_t blocks, std::int64_t block) {
    std::vector<Run> runs;
    for (std::int64_t b = 0; blocks >> b; ++b) {
        if (!(blocks >> b & 1)) continue;
        if (!runs.empty() && runs.back().from + runs.back().count == b * block)
            runs.back().count += block;
        else
            runs.push_back({b * block, b * block, block, nullptr});
        if (b == 31) break;
    }
    return runs;
}

}  // namespace

CausalKeys::CausalKeys(const Window& given, std::int64_t block, std::int64_t share)
    : pixels_(given.height * given.width), block_runs_{0}, share_strips_{0} {
    const Tiling tiling = imagen_fast::tiling(simplified(given), block);
    const Window& w = tiling.window;
    const std::vector<Pixel> pixels = pixels_ ? in_order(tiling) : std::vector<Pixel>();
    for (const Pixel& pixel : pixels) order_.push_back(pixel.number);
    const std::int64_t blocks = static_cast<std::int64_t>(pixels.size()) / block;
    const std::int64_t tile_parts = tiling.parts_of_a_tile(), parts = blocks * tile_parts;

    // Tables grow while they are made: what will point into another one is a number until then.
    std::vector<std::size_t> run_masks, strip_queries;
    constexpr std::size_t NONE = ~std::size_t(0);
    std::vector<bool> seen_before(static_cast<std::size_t>(parts));
    for (std::int64_t first = 0; first < blocks; first += share / block) {
        std::vector<std::uint32_t> seeing(static_cast<std::size_t>(parts));  // blocks of this share, as bits
        const std::int64_t last = std::min(blocks, first + share / block);
        for (std::int64_t b = first; b < last; ++b) {
            const Box queries = tiling.tile(b);
            std::int64_t at = 0;
            for (std::int64_t part = 0; part < parts; ++part) {
                if (part % tile_parts == 0 && !some_see(w, queries, tiling.tile(part / tile_parts))) {
                    part += tile_parts - 1;
                    continue;
                }
                const Box keys = tiling.part(part);
                if (!some_see(w, queries, keys)) continue;
                const std::int64_t from = part * PART;
                std::uint32_t bits[PART], some = 0, every = ~std::uint32_t(0);
                const bool all = all_see(w, queries, keys);
                for (std::int64_t i = 0; i < PART && !all; ++i) {
                    bits[i] = mask(w, &pixels[b * block], block, pixels[from + i]);
                    some |= bits[i];
                    every &= bits[i];
                }
                if (!all && !some) continue;
                seeing[part] |= std::uint32_t(1) << (b - first);
                const bool joins =
                    at && runs_.back().from + runs_.back().count == from && (run_masks.back() == NONE) == all;
                if (joins) {
                    runs_.back().count += PART;
                } else {
                    runs_.push_back({from, at, PART, nullptr});
                    run_masks.push_back(all ? NONE : masks_.size());
                }
                if (!all) masks_.insert(masks_.end(), bits, bits + PART);
                at += PART;
            }
            block_runs_.push_back(static_cast<std::int64_t>(runs_.size()));
        }
        std::uint32_t joined = 0;
        for (std::int64_t part = 0; part < parts; ++part) {
            const std::uint32_t bits = seeing[part];
            const bool before = seen_before[part];
            if (bits && bits == joined && strips_.back().seen_before == before) {
                strips_.back().count += PART;
            } else if (bits) {
                const std::vector<Run> queries = query_runs(bits, block);
                strip_queries.push_back(share_queries_.size());
                share_queries_.insert(share_queries_.end(), queries.begin(), queries.end());
                strips_.push_back(
                    {part * PART, PART, nullptr, static_cast<std::int64_t>(queries.size()), before});
            }
            joined = bits;
            if (bits) seen_before[part] = true;
        }
        share_strips_.push_back(static_cast<std::int64_t>(strips_.size()));
    }
    for (std::size_t i = 0; i < runs_.size(); ++i)
        if (run_masks[i] != NONE) runs_[i].seen = masks_.data() + run_masks[i];
    for (std::size_t i = 0; i < strips_.size(); ++i)
        strips_[i].queries = share_queries_.data() + strip_queries[i];
}

}  // namespace imagen_fast
