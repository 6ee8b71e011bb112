// What a query of a grid sees; pixel (j, k) has the raster number j * width + k.
#pragma once

#include <cstdint>

namespace imagen_fast {

// The query (j, k) sees the key (y, x) if it comes no later in raster order, y >= j - above and
// k - left <= x <= k + right; and every key whose raster number is below `prefix`.
struct Window {
    std::int64_t height, width, above, left, right, prefix;
};

// Where every earlier pixel is seen, rows and columns do not matter: the same window on one long row.
inline Window simplified(const Window& w) {
    if (w.above < w.height - 1 || w.left < w.width - 1 || w.right < w.width - 1) return w;
    const std::int64_t pixels = w.height * w.width;
    return {1, pixels, 0, pixels, 0, w.prefix};
}

struct Pixel {
    std::int32_t number, row, column;  // number -1: none
};

inline bool sees(const Window& w, const Pixel& query, const Pixel& key) {
    const std::int32_t along = query.column - key.column;
    const bool near = query.row - key.row <= w.above && along <= w.left && -along <= w.right;
    return (key.number <= query.number && near) || key.number < w.prefix;
}

// Pixels from (top, left) to (bottom, right), both of them in it.
struct Box {
    std::int64_t top, left, bottom, right;

    std::int64_t pixels() const { return (bottom - top + 1) * (right - left + 1); }
};

// Whether some query may see some key; a few are let through of which none does.
inline bool some_see(const Window& w, const Box& queries, const Box& keys) {
    if (keys.pixels() <= 0) return false;
    if (keys.top * w.width + keys.left < w.prefix) return true;
    return keys.top <= queries.bottom && keys.bottom >= queries.top - w.above &&
           keys.left <= queries.right + w.right && keys.right >= queries.left - w.left;
}

// Whether every query sees every key; where it says no they may nevertheless.
inline bool all_see(const Window& w, const Box& queries, const Box& keys) {
    if (keys.bottom * w.width + keys.right < w.prefix) return true;
    const bool before =
        keys.bottom < queries.top || (keys.bottom == queries.top && keys.right <= queries.left);
    return before && keys.top >= queries.bottom - w.above && keys.right <= queries.left + w.right &&
           keys.left >= queries.right - w.left;
}

}  // namespace imagen_fast
