// Where the pixels of a grid lie in a cache, and which of them each group of a step's pixels sees.
//
// Pixels lie in blocks: squares of the grid, most of which a group of neighbours on an anti-diagonal sees as
// a whole or not at all. Where the order of rows is all that counts, they are pieces of one long row.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/generation.h"
#include "cpu/window.h"

namespace imagen_fast {

// The blocks of a grid; an even number, since the keys of two lie side by side.
std::int64_t cache_blocks(const Window& window);

class StepView {
public:
    // `places`: raster numbers of the tokens that are computed at once; what they see is in the cache by
    // then.
    StepView(const Window& window, const std::vector<std::int64_t>& places);

    Step step() const;

private:
    std::vector<std::int64_t> slots_, group_blocks_;
    std::vector<SeenBlock> blocks_;
    std::vector<std::uint32_t> masks_;
    std::int64_t pairs_ = 0, most_ = 0;
};

}  // namespace imagen_fast
