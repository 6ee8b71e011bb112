// Compiled once per instruction set; see instruction_set.h.
#include "cpu/gelu.h"

#include "cpu/activations.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

// Of the standard normal distribution at `size` >= 0: its density up to a factor, and the share beyond.
struct Tail {
    Floats size, density, beyond;
};

// The share is the density times a series in 1 / (1 + c size), as by Abramowitz and Stegun, 7.1.26; this one
// is fitted for the least relative error, 3e-5 up to 14, so that the tail keeps all digits of a bfloat16.
static inline Tail tail_of(Floats x) {
    constexpr float series[] = {0.149758146f, 0.158025175f, 0.0855218128f, 0.197643327f, -0.0909629578f};
    // Beyond 20 the density is 0 in float32.
    Floats size = larger(x, -x);
    size = size > 20.0f ? all(20.0f) : size;
    const Floats density = exp2<4>(size * size * -0.721347520f), t = 1.0f / (1.0f + 0.376671705f * size);
    Floats p = all(series[4]);
    for (int i = 3; i >= 0; --i) p = p * t + series[i];
    return {size, density, density * (p * t)};
}

}  // namespace

void gelu(const BFloat16* x, std::int64_t count, BFloat16* y) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = load(x + i, n);
        const Tail tail = tail_of(value);
        store(y + i, larger(Floats{}, value) - tail.size * tail.beyond, n);
    });
}

void gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = load(x + i, n);
        const Tail tail = tail_of(value);
        // Of a positive x, as the slopes at x and -x sum up to 1. 0.3989 is 1 / sqrt(2 pi).
        const Floats beyond = tail.beyond - 0.398942280f * tail.size * tail.density;
        store(d_x + i, load(d_y + i, n) * (value < 0.0f ? beyond : 1.0f - beyond), n);
    });
}

void quick_gelu(const BFloat16* x, std::int64_t count, BFloat16* y) {
    for_lanes(count, [=](std::int64_t i, auto n) { store(y + i, quick_gelu<5>(load(x + i, n)), n); });
}

void quick_gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x) {
    for_lanes(count, [=](std::int64_t i, auto n) {
        const Floats value = held(load(x + i, n)), e = quick_gelu_decay<5>(value),
                     sigmoid = 1.0f / (1.0f + e);
        // The sigmoid's own slope is sigmoid * (1 - sigmoid), and e * sigmoid is that difference.
        const Floats slope = sigmoid * (1.0f + QUICK_GELU_SLOPE * value * (e * sigmoid));
        store(d_x + i, load(d_y + i, n) * slope, n);
    });
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
