// What a query of a grid sees; pixel (j, k) has the raster number j * width + k.
#pragma once

#include <cstdint>

namespace imagen_fast {

// The query (j, k) sees the key (y, x) if it comes no later in raster order, y >= j - above and
// k - left <= x <= k + right; and every key whose raster number is below `prefix`.
struct Window {
    std::int64_t height, width, above, left, right, prefix;
};

}  // namespace imagen_fast
