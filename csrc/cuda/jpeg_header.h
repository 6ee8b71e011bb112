// What must be known of a JPEG before nvJPEG gets it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/view.h"

namespace imagen_fast {

struct JpegHeader {
    JpegSize stored;
    int orientation;  // EXIF's, 1 to 8
};

// Raises std::invalid_argument with the reason where the file is for another decoder: nvJPEG cannot take it,
// would make other pixels of it than libjpeg, or would not notice that it is cut short.
JpegHeader read_jpeg_header(const std::uint8_t* data, std::size_t size);

}  // namespace imagen_fast
