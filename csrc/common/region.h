#pragma once

#include <cstdint>

namespace imagen_fast {

struct JpegSize {
    std::int64_t width, height;
};

// Pixels [left, right) x [top, bottom).
struct Region {
    std::int64_t left, top, right, bottom;

    std::int64_t width() const { return right - left; }
    std::int64_t height() const { return bottom - top; }
};

// So many rows of a JPEG come at a time at most: a row of blocks, whichever the sampling of colour.
constexpr std::int64_t MOST_JPEG_ROWS = 16;

// Bytes that may be read beyond the last pixel of a decoded row.
constexpr std::int64_t JPEG_ROW_SLACK = 64;

}  // namespace imagen_fast
