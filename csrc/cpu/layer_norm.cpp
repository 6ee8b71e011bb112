#include "cpu/layer_norm.h"

#include <algorithm>
#include <vector>

namespace imagen_fast {

namespace {

// Rows whose gradients of weight and bias are added by one thread, one after another.
constexpr std::int64_t BLOCK = 64;

}  // namespace

void layer_norm_forward(const LayerNorm& norm, BFloat16* y, float* statistics, int threads) {
    const auto row = IMAGEN_FAST_BEST(layer_norm_row);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> wide(static_cast<std::size_t>(norm.width));
#pragma omp for schedule(static)
        for (std::int64_t r = 0; r < norm.rows; ++r) row(norm, r, wide.data(), y, statistics);
    }
}

void layer_norm_backward(const LayerNorm& norm, const BFloat16* d_y, const float* statistics, BFloat16* d_x,
                         BFloat16* d_weight, BFloat16* d_bias, int threads) {
    const auto row = IMAGEN_FAST_BEST(layer_norm_backward_row);
    const std::int64_t blocks = (norm.rows + BLOCK - 1) / BLOCK, both = 2 * norm.width;
    std::vector<float> parts(static_cast<std::size_t>(blocks * both));
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> wide(static_cast<std::size_t>(both));
#pragma omp for schedule(static)
        for (std::int64_t block = 0; block < blocks; ++block)
            for (std::int64_t r = block * BLOCK; r < std::min(norm.rows, (block + 1) * BLOCK); ++r)
                row(norm, r, d_y, statistics, wide.data(), d_x, parts.data() + block * both);
    }
    std::vector<float> total(static_cast<std::size_t>(both));
    for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t i = 0; i < both; ++i) total[i] += parts[block * both + i];
    for (std::int64_t i = 0; i < norm.width; ++i) {
        store(total[i], d_weight + i);
        store(total[norm.width + i], d_bias + i);
    }
}

}  // namespace imagen_fast
