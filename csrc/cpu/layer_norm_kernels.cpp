// Compiled once per instruction set; see instruction_set.h.
#include "cpu/layer_norm.h"

#include <cmath>

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

void layer_norm_row(const LayerNorm& norm, std::int64_t row, float* wide, BFloat16* y, float* statistics) {
    const std::int64_t n = norm.width;
    const BFloat16* x = norm.x + row * n;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) {
        wide[i] = to_float(x[i]);
        sum += wide[i];
    }
    const float mean = sum / static_cast<float>(n);
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < n; ++i) squares += (wide[i] - mean) * (wide[i] - mean);
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + norm.eps);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
        store((wide[i] - mean) * inverse * to_float(norm.weight[i]) + to_float(norm.bias[i]),
              y + row * n + i);
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = inverse;
}

void layer_norm_backward_row(const LayerNorm& norm, std::int64_t row, const BFloat16* d_y,
                             const float* statistics, float* wide, BFloat16* d_x, float* sums) {
    const std::int64_t n = norm.width;
    const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
    // Nothing overlaps: without the promise the compiler takes one value at a time.
    const BFloat16* __restrict x = norm.x + row * n;
    const BFloat16* __restrict d = d_y + row * n;
    const BFloat16* __restrict weight = norm.weight;
    float* __restrict normal = wide;
    float* __restrict scaled = wide + n;
    float* __restrict d_weight = sums;
    float* __restrict d_bias = sums + n;
    float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
    for (std::int64_t i = 0; i < n; ++i) {
        const float g = to_float(d[i]), unit = (to_float(x[i]) - mean) * inverse, s = g * to_float(weight[i]);
        normal[i] = unit;
        scaled[i] = s;
        d_weight[i] += g * unit;
        d_bias[i] += g;
        sum += s;
        along += s * unit;
    }
    sum /= static_cast<float>(n);
    along /= static_cast<float>(n);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
        store(inverse * (scaled[i] - sum - normal[i] * along), d_x + row * n + i);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
