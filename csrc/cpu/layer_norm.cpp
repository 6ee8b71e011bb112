#include "cpu/layer_norm.h"

#include <algorithm>
#include <vector>

namespace imagen_fast {

namespace {

// Rows whose gradients of weight and bias are added by one thread, one after another.
constexpr std::int64_t BLOCK = 64;

}  // namespace

void layer_norm_forward(const LayerNorm& norm, BFloat16* y, float* statistics, int threads) {
    const auto work = IMAGEN_FAST_BEST_BF16(layer_norm_rows);
    const std::int64_t each = (norm.rows + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread)
        work(norm, std::min(norm.rows, thread * each), std::min(norm.rows, (thread + 1) * each), y,
             statistics);
}

void layer_norm_backward(const LayerNorm& norm, const BFloat16* d_y, const float* statistics, BFloat16* d_x,
                         BFloat16* d_weight, BFloat16* d_bias, int threads) {
    const auto work = IMAGEN_FAST_BEST_BF16(layer_norm_backward_rows);
    const std::int64_t blocks = (norm.rows + BLOCK - 1) / BLOCK;
    const std::int64_t learned = norm.bias ? 2 * norm.width : norm.width;
    std::vector<float> parts(static_cast<std::size_t>(blocks * learned));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t block = 0; block < blocks; ++block) {
        float* part = parts.data() + block * learned;
        work(norm, block * BLOCK, std::min(norm.rows, (block + 1) * BLOCK), d_y, statistics, d_x, part,
             part + norm.width);
    }
    std::vector<float> total(static_cast<std::size_t>(learned));
    for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t i = 0; i < learned; ++i) total[i] += parts[block * learned + i];
    for (std::int64_t i = 0; i < norm.width; ++i) {
        store(total[i], d_weight + i);
        if (norm.bias) store(total[norm.width + i], d_bias + i);
    }
}

}  // namespace imagen_fast
