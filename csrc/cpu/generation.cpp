#include "cpu/generation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace imagen_fast {

namespace {

// Products that a thread must have before it is worth waking: some tens of microseconds.
constexpr std::int64_t LEAST_WORK = 1 << 19;

int worth(std::int64_t products, int threads) {
    return static_cast<int>(std::clamp<std::int64_t>(products / LEAST_WORK, 1, threads));
}

std::int64_t panels(std::int64_t columns) { return (columns + PANEL - 1) / PANEL; }

}  // namespace

std::int64_t packed_size(std::int64_t out, std::int64_t in) { return panels(out) * in * PANEL; }

void pack_weight(const float* weight, std::int64_t out, std::int64_t in, float* packed) {
    std::fill(packed, packed + packed_size(out, in), 0.0f);
    for (std::int64_t column = 0; column < out; ++column)
        for (std::int64_t k = 0; k < in; ++k)
            packed[(column / PANEL * in + k) * PANEL + column % PANEL] = weight[column * in + k];
}

void packed_linear(const PackedLinear& linear, int threads) {
    const auto panel = IMAGEN_FAST_BEST(packed_linear_panel);
    const std::int64_t many = panels(linear.layer.out);
    threads = worth(linear.rows * linear.layer.in * linear.layer.out, threads);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (std::int64_t p = 0; p < many; ++p) panel(linear, p);
}

void attend_step(const StepAttention& attention, int threads) {
    const auto one = IMAGEN_FAST_BEST(attend_step_one);
    const StepCache& cache = attention.cache;
    const std::int64_t heads = cache.batch * cache.heads;
    threads = worth(2 * heads * attention.step.pairs * BLOCK_KEYS * cache.width, threads);
    const std::int64_t each = IMAGEN_FAST_BEST(attend_step_workspace)(attention);
    std::vector<float> workspace(static_cast<std::size_t>(each * threads));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (std::int64_t head = 0; head < heads; ++head) {
#if defined(_OPENMP)
        float* own = workspace.data() + each * omp_get_thread_num();
#else
        float* own = workspace.data();
#endif
        one(attention, head / cache.heads, head % cache.heads, own);
    }
}

void step_block(const StepBlock& block, const Step& step, float* x, int threads) {
    const StepCache& cache = block.cache;
    const std::int64_t rows = cache.batch * step.tokens, width = cache.heads * cache.width;
    const std::int64_t wide = std::max(3 * width, block.fc1.out);
    // New memory is not made zero: all of it is written before it is read.
    const std::unique_ptr<float[]> memory(new float[static_cast<std::size_t>(rows * (width + wide))]);
    float *narrow = memory.get(), *spread = narrow + rows * width;
    const auto normalise_rows = [&](const RowNorm& norm) {
        const auto normalise = IMAGEN_FAST_BEST(normalise);
        for (std::int64_t row = 0; row < rows; ++row)
            normalise(norm, x + row * width, width, narrow + row * width);
    };

    normalise_rows(block.norm1);
    packed_linear({block.qkv, narrow, rows, spread}, threads);
    const auto part = [&](int number) {
        return StepTokens{spread + number * width, step.tokens * 3 * width, 3 * width, cache.width};
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(cache.width));
    attend_step({cache, step, part(0), part(1), part(2), scale, narrow}, threads);
    packed_linear({block.proj, narrow, rows, x, Activation::none, true}, threads);

    normalise_rows(block.norm2);
    packed_linear({block.fc1, narrow, rows, spread, block.activation}, threads);
    packed_linear({block.fc2, spread, rows, x, Activation::none, true}, threads);
}

}  // namespace imagen_fast
