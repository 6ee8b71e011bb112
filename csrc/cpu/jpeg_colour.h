// A JPEG's rows of colour to RGB, equal to libjpeg's. Compiled for AVX2 and beyond only.
#pragma once

#include <cstdint>

#include "cpu/instruction_set.h"

namespace imagen_fast {

#define IMAGEN_FAST_DECLARE(set)                                                                          \
    namespace set {                                                                                       \
    /* A row of colour at half the width to twice its count, each three quarters of the nearer and a      \
       quarter of the further one; likewise from the two nearest rows where it has half the height. Reads \
       one value on either side, and all go on to whole groups of 16. */                                  \
    void widen(const std::uint8_t* row, std::int64_t count, std::uint8_t* out);                           \
    void widen_between(const std::uint8_t* row, const std::uint8_t* further, std::int64_t count,          \
                       std::uint8_t* out);                                                                \
    void to_rgb(const std::uint8_t* luma, const std::uint8_t* blue, const std::uint8_t* red,              \
                std::int64_t count, std::uint8_t* out);                                                   \
    }
IMAGEN_FAST_FOR_EACH_VECTOR_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
