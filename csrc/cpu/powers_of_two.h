// 2^x as the softmaxes here take it, and nothing else: how many a second a processor makes.
#pragma once

#include <cstdint>

#include "cpu/instruction_set.h"

namespace imagen_fast {

// y [count] from x [count], at most 127, `repeats` times over; each thread goes over a part of its own, so
// that a part that fits a core's nearest cache stays there. To a float's last place, or as bfloat16 needs it.
void powers_of_two(const float* x, std::int64_t count, float* y, bool half, int repeats, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                      \
    namespace set {                                                                   \
    void powers_of_two_part(const float* x, std::int64_t count, float* y, bool half); \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
