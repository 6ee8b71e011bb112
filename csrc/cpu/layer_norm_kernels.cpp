// Compiled once per instruction set; see instruction_set.h. One row at a time: with four side by side short
// rows were a quarter faster, long ones half slower.
#include "cpu/layer_norm.h"

#include "cpu/norm_row.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

template <bool CENTRED>
inline void forward(const LayerNorm& norm, std::int64_t row, BFloat16* y, float* statistics) {
    const std::int64_t at = row * norm.width;
    const auto found =
        normalise_row<CENTRED>(norm.x + at, norm.weight, norm.bias, norm.width, norm.eps, y + at);
    statistics += row * statistics_of_row(norm);
    statistics[0] = found.inverse;
    if (CENTRED) statistics[1] = found.mean;
}

template <bool CENTRED>
inline void backward(const LayerNorm& norm, std::int64_t row, const BFloat16* d_y, const float* statistics,
                     BFloat16* d_x, float* d_weight, float* d_bias) {
    const std::int64_t width = norm.width;
    const float share = 1.0f / static_cast<float>(width);
    const BFloat16* x = norm.x + row * width;
    d_y += row * width;
    statistics += row * statistics_of_row(norm);
    const float inverse = statistics[0], mean = CENTRED ? statistics[1] : 0;
    // What the normalised row's gradient has along the ones, and along that row, does not reach x.
    Floats ones{}, itself{};
    for_lanes(width, [&](std::int64_t i, auto n) {
        const Floats d_unit = load(d_y + i, n) * load(norm.weight + i, n);
        if (CENTRED) ones += d_unit;
        itself += d_unit * ((load(x + i, n) - mean) * inverse);
    });
    const float along_ones = CENTRED ? total(ones) * share : 0, along_itself = total(itself) * share;
    for_lanes(width, [&](std::int64_t i, auto n) {
        const Floats g = load(d_y + i, n), unit = (load(x + i, n) - mean) * inverse;
        store(d_weight + i, load(d_weight + i, n) + g * unit, n);
        if (CENTRED) store(d_bias + i, load(d_bias + i, n) + g, n);
        const Floats rest = g * load(norm.weight + i, n) - along_ones - unit * along_itself;
        store(d_x + row * width + i, inverse * rest, n);
    });
}

}  // namespace

void layer_norm_rows(const LayerNorm& norm, std::int64_t first, std::int64_t last, BFloat16* y,
                     float* statistics) {
    const auto work = norm.bias ? forward<true> : forward<false>;
    for (std::int64_t row = first; row < last; ++row) work(norm, row, y, statistics);
}

void layer_norm_backward_rows(const LayerNorm& norm, std::int64_t first, std::int64_t last,
                              const BFloat16* d_y, const float* statistics, BFloat16* d_x, float* d_weight,
                              float* d_bias) {
    const auto work = norm.bias ? backward<true> : backward<false>;
    for (std::int64_t row = first; row < last; ++row) work(norm, row, d_y, statistics, d_x, d_weight, d_bias);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
