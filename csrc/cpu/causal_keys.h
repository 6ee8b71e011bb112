// The pixels of a grid in tiles, and which of them each tile's pixels see: what makes causal attention cheap.
//
// A block of queries is a tile of the grid, and keys come in smaller tiles; so a block of a quadrant or of a
// neighbourhood sees few keys that most of its queries do not see. Where the order of rows is all that
// counts, the grid is taken as one long row.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/seen_keys.h"
#include "cpu/window.h"

namespace imagen_fast {

class CausalKeys {
public:
    // `block` queries are worked on at a time, a power of two from 8 to 32; `share` is a multiple of it.
    CausalKeys(const Window& window, std::int64_t block, std::int64_t share);
    // Runs and strips point into their own tables.
    CausalKeys(const CausalKeys&) = delete;
    CausalKeys& operator=(const CausalKeys&) = delete;

    // The raster number of each pixel in the order of the tiles, which are all whole: -1 where there is none.
    const std::vector<std::int32_t>& order() const { return order_; }
    std::int64_t pixels() const { return pixels_; }
    SeenKeys seen() const { return {runs_.data(), block_runs_.data(), strips_.data(), share_strips_.data()}; }

private:
    struct Making;
    void add_runs(Making& now, std::int64_t b, std::uint32_t bit);
    void add_strips(Making& now);

    std::int64_t pixels_;
    std::vector<std::int32_t> order_;
    std::vector<std::uint32_t> masks_;
    std::vector<Run> runs_, share_queries_;
    std::vector<Strip> strips_;
    std::vector<std::int64_t> block_runs_, share_strips_;
};

}  // namespace imagen_fast
