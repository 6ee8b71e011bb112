#include "cpu/causal_keys.h"

#include <algorithm>

namespace imagen_fast {

namespace {

// Keys are taken or left so many at a time: as many rows as the attention kernels multiply at once.
constexpr std::int64_t PART = 8;

constexpr std::int64_t groups(std::int64_t n, std::int64_t of) { return (n + of - 1) / of; }

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

    std::int64_t across() const { return groups(window.width, width); }
    std::int64_t tiles() const { return groups(window.height, height) * across(); }
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
Tiling cheapest(const Window& window, std::int64_t block) {
    Tiling best(window, 1, block);
    for (std::int64_t height = 2; height <= block; height *= 2) {
        const Tiling other(window, height, block / height);
        if (other.cost() < best.cost()) best = other;
    }
    return best;
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
    for (std::int64_t b = 0; b < 32; ++b) {
        if (!(blocks >> b & 1)) continue;
        if (!runs.empty() && runs.back().from + runs.back().count == b * block)
            runs.back().count += block;
        else
            runs.push_back({b * block, b * block, block, nullptr});
    }
    return runs;
}

}  // namespace

// What is at hand while the tables are made. They grow: what will point into another one is a number until
// then.
struct CausalKeys::Making {
    Tiling tiling;
    std::vector<Pixel> pixels;
    std::int64_t block, parts;
    std::vector<std::size_t> run_masks, strip_queries;
    std::vector<bool> seen_before;      // a part, by an earlier share
    std::vector<std::uint32_t> seeing;  // the blocks of this share that see a part, as bits
};

namespace {

constexpr std::size_t NO_MASKS = ~std::size_t(0);

}  // namespace

CausalKeys::CausalKeys(const Window& given, std::int64_t block, std::int64_t share)
    : pixels_(given.height * given.width), block_runs_{0}, share_strips_{0} {
    if (!pixels_) return;
    const Tiling tiling = cheapest(simplified(given), block);
    const std::int64_t blocks = tiling.tiles(), parts = blocks * tiling.parts_of_a_tile();
    Making now{tiling, in_order(tiling), block, parts, {}, {}, std::vector<bool>(parts), {}};
    for (const Pixel& pixel : now.pixels) order_.push_back(pixel.number);
    for (std::int64_t first = 0; first < blocks; first += share / block) {
        now.seeing.assign(parts, 0);
        for (std::int64_t b = first; b < std::min(blocks, first + share / block); ++b)
            add_runs(now, b, std::uint32_t(1) << (b - first));
        add_strips(now);
    }
    for (std::size_t i = 0; i < runs_.size(); ++i)
        if (now.run_masks[i] != NO_MASKS) runs_[i].seen = masks_.data() + now.run_masks[i];
    for (std::size_t i = 0; i < strips_.size(); ++i)
        strips_[i].queries = share_queries_.data() + now.strip_queries[i];
}

void CausalKeys::add_runs(Making& now, std::int64_t b, std::uint32_t bit) {
    const Window& w = now.tiling.window;
    const std::int64_t tile_parts = now.tiling.parts_of_a_tile();
    const Pixel* const block = &now.pixels[b * now.block];
    const Box queries = now.tiling.tile(b);
    std::uint32_t exist = 0;
    for (std::int64_t l = 0; l < now.block; ++l) exist |= std::uint32_t(block[l].number >= 0) << l;
    std::int64_t at = 0;
    for (std::int64_t part = 0; part < now.parts; ++part) {
        if (part % tile_parts == 0 && !some_see(w, queries, now.tiling.tile(part / tile_parts))) {
            part += tile_parts - 1;
            continue;
        }
        const Box keys = now.tiling.part(part);
        if (!some_see(w, queries, keys)) continue;
        const std::int64_t from = part * PART;
        const bool all = keys.pixels() == PART && all_see(w, queries, keys);
        std::uint32_t bits[PART], some = 0;
        for (std::int64_t i = 0; i < PART && !all; ++i) {
            bits[i] = mask(w, block, now.block, now.pixels[from + i]);
            some |= bits[i] & exist;
        }
        if (!all && !some) continue;
        now.seeing[part] |= bit;
        if (at && runs_.back().from + runs_.back().count == from &&
            (now.run_masks.back() == NO_MASKS) == all) {
            runs_.back().count += PART;
        } else {
            runs_.push_back({from, at, PART, nullptr});
            now.run_masks.push_back(all ? NO_MASKS : masks_.size());
        }
        if (!all) masks_.insert(masks_.end(), bits, bits + PART);
        at += PART;
    }
    block_runs_.push_back(static_cast<std::int64_t>(runs_.size()));
}

void CausalKeys::add_strips(Making& now) {
    std::uint32_t joined = 0;  // the blocks that see the part before this one
    for (std::int64_t part = 0; part < now.parts; ++part) {
        const std::uint32_t bits = now.seeing[part];
        if (bits && bits == joined && strips_.back().seen_before == now.seen_before[part]) {
            strips_.back().count += PART;
        } else if (bits) {
            const std::vector<Run> queries = query_runs(bits, now.block);
            now.strip_queries.push_back(share_queries_.size());
            share_queries_.insert(share_queries_.end(), queries.begin(), queries.end());
            strips_.push_back({part * PART, PART, nullptr, static_cast<std::int64_t>(queries.size()),
                               now.seen_before[part]});
        }
        joined = bits;
        if (bits) now.seen_before[part] = true;
    }
    share_strips_.push_back(static_cast<std::int64_t>(strips_.size()));
}

}  // namespace imagen_fast
