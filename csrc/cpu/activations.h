// Activations between the layers of a transformer, of a register of values.
//
// Included by files that are compiled once per instruction set.
#pragma once

#include "cpu/exponentials.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

constexpr float QUICK_GELU_SLOPE = 1.702f;

// Outside of this the sigmoid is 0 or 1 to any precision, and its exponential would be no finite number.
static inline Floats held(Floats x) {
    x = larger(all(-50.0f), x);
    return x > 50.0f ? all(50.0f) : x;
}

// e^(-1.702 x) of what is held; DEGREE: see exp2.
template <int DEGREE>
static inline Floats quick_gelu_decay(Floats x) {
    return exp2<DEGREE>(x * (-QUICK_GELU_SLOPE * 1.44269504f));
}

// x sigmoid(1.702 x)
template <int DEGREE>
static inline Floats quick_gelu(Floats x) {
    const Floats inside = held(x);
    return larger(inside, x) / (1.0f + quick_gelu_decay<DEGREE>(inside));
}

// erfc(z) for z >= 0, to 1.2e-7 of it (Press et al., Numerical Recipes, 2nd edition, section 6.2) and what
// rounding z * z costs an exponential: 1e-5 at z = 9. It is never below e^-87.
static inline Floats erfc(Floats z) {
    constexpr float series[] = {-1.26551223f, 1.00002368f,  0.37409196f, 0.09678418f,  -0.18628806f,
                                0.27886807f,  -1.13520398f, 1.48851587f, -0.82215223f, 0.17087277f};
    const Floats t = 1.0f / (1.0f + 0.5f * z);
    Floats p = all(series[9]);
    for (int i = 8; i >= 0; --i) p = p * t + series[i];
    return t * exp(p - z * z);
}

// x times the share of a standard normal distribution that lies below x.
static inline Floats gelu(Floats x) {
    const Floats size = larger(x, -x), outside = 0.5f * size * erfc(0.707106781f * size);
    return larger(x, Floats{}) - outside;
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
