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

// Bytes that may be read beyond the last pixel of a decoded row.
constexpr std::int64_t JPEG_ROW_SLACK = 64;

}  // namespace imagen_fast
