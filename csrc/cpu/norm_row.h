// One row, normalised: what layer normalisation and its simpler form are made of, in either type.
//
// Included by files that are compiled once per instruction set.
#pragma once

#include <cmath>

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

struct RowStatistics {
    float inverse;  // one over the deviation, or over the root mean square
    float mean;     // 0 where none was taken away
};

// CENTRED: the mean is taken away first, and a bias added at the end.
template <bool CENTRED, class T>
static inline RowStatistics normalise_row(const T* x, const T* weight, const T* bias, std::int64_t width,
                                          float eps, T* y) {
    const float share = 1.0f / static_cast<float>(width);
    float mean = 0;
    if (CENTRED) {
        Floats sum{};
        for_lanes(width, [&](std::int64_t i, auto n) { sum += load(x + i, n); });
        mean = total(sum) * share;
    }
    Floats squares{};
    for_lanes(width, [&](std::int64_t i, auto n) {
        const Floats centred = first_of(load(x + i, n) - mean, n);
        squares += centred * centred;
    });
    const float inverse = 1.0f / std::sqrt(total(squares) * share + eps);
    for_lanes(width, [&](std::int64_t i, auto n) {
        Floats value = (load(x + i, n) - mean) * inverse * load(weight + i, n);
        if (CENTRED) value += load(bias + i, n);
        store(y + i, value, n);
    });
    return {inverse, mean};
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
