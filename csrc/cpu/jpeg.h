// JPEG to RGB bytes through libjpeg-turbo: the whole image or a region, equal to a full decode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace imagen_fast {

// This decoder does not vouch for the file. The caller may ask a more lenient one.
struct JpegError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct JpegSize {
    std::int64_t width, height;
};

// Pixels [left, right) x [top, bottom).
struct Region {
    std::int64_t left, top, right, bottom;
};

JpegSize jpeg_size(const std::uint8_t* data, std::size_t size);

// out [bottom - top, right - left, 3]
void decode_jpeg(const std::uint8_t* data, std::size_t size, const Region& region, std::uint8_t* out);

}  // namespace imagen_fast
