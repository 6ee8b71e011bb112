// Compiled once per instruction set; see instruction_set.h.
#include "cpu/quick_gelu.h"

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

constexpr float SLOPE = 1.702f, LOG2_E = 1.44269504f;

// Outside of this the sigmoid is 0 or 1 to any precision, and its exponential would be no finite number.
inline Floats held(Floats x) {
    x = larger(all(-50.0f), x);
    return x > 50.0f ? all(50.0f) : x;
}

// e^(-1.702 x) of what is held.
inline Floats decay(Floats x) { return exp2<5>(x * (-SLOPE * LOG2_E)); }

}  // namespace

void quick_gelu(const BFloat16* x, std::int64_t count, BFloat16* y) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = load(x + i, n), inside = held(value);
        store(y + i, larger(inside, value) / (1.0f + decay(inside)), n);
    });
}

void quick_gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = held(load(x + i, n)), e = decay(value), sigmoid = 1.0f / (1.0f + e);
        // The sigmoid's own slope is sigmoid * (1 - sigmoid), and e * sigmoid is that difference.
        const Floats slope = sigmoid * (1.0f + SLOPE * value * (e * sigmoid));
        store(d_x + i, load(d_y + i, n) * slope, n);
    });
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
