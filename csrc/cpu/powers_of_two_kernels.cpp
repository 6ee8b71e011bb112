// Compiled once per instruction set; see instruction_set.h.
#include "cpu/powers_of_two.h"

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

template <int DEGREE>
void powers(const float* x, std::int64_t count, float* y) {
    for_lanes(count, [=](std::int64_t i, auto n) { store(y + i, exp2<DEGREE>(load(x + i, n)), n); });
}

}  // namespace

void powers_of_two_part(const float* x, std::int64_t count, float* y, bool half) {
    // The degrees of attention and of the causal softmax.
    half ? powers<4>(x, count, y) : powers<7>(x, count, y);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
