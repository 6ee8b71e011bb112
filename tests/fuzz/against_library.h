#pragma once

#include <cstddef>
#include <cstdint>

namespace imagen_fast {

// Ends the process where our own decoder and libjpeg-turbo's of the whole image differ on this file at
// `eighths` / 8 of the scale: in a coefficient, in a pixel, in one of some regions drawn from `seed` by
// either decoder, or in whether it is decoded.
void compare_with_library(const std::uint8_t* data, std::size_t size, int eighths, int regions,
                          std::uint64_t seed);

// Files of which our own decoder read every coefficient.
long files_compared();

}  // namespace imagen_fast
