// Exponentials and logarithms that are right to one or two units in the last place, also where lanes.h's
// exp2 of a product is not: exp(x) of a large x, and log(1 + u) of a small u.
#pragma once

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

// e^x; what lies outside e^-87 .. e^88 is those. x = n ln 2 + f, with ln 2 in two parts of which the products
// with n are exact, and the Taylor series of e^f for |f| <= ln 2 / 2.
static inline Floats exp(Floats x) {
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
    x = larger(all(-87.0f), x);
    x = x > 88.0f ? all(88.0f) : x;
    const Floats shifted = x * 1.44269504f + rounder, n = shifted - rounder;
    const Floats f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = all(1.9841270e-4f);  // 1 / 7!, then / 6!, ...
    p = p * f + 1.3888889e-3f;
    p = p * f + 8.3333333e-3f;
    p = p * f + 4.1666667e-2f;
    p = p * f + 1.6666667e-1f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    // The integer lies in the low bits of `shifted`; moved up it is added to the exponent.
    return (Floats)((Bits)p + ((Bits)shifted << 23));
}

// log(1 + u) for u in 0 .. 1: 2 (t + t^3/3 + t^5/5 + ...) with t = u / (2 + u) <= 1/3.
static inline Floats log1p(Floats u) {
    const Floats t = u / (u + 2.0f), tt = t * t;
    Floats p = all(0.15384615f);  // 2 / 13, then / 11, ...
    p = p * tt + 0.18181818f;
    p = p * tt + 0.22222222f;
    p = p * tt + 0.28571429f;
    p = p * tt + 0.4f;
    p = p * tt + 0.66666667f;
    p = p * tt + 2.0f;
    return p * t;
}

// ln of positive normal numbers.
static inline Floats log(Floats x) { return log2(x) * 0.693147181f; }

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
