#include "cpu/generation.h"

#include <algorithm>
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
    const std::int64_t many = panels(linear.out);
    threads = worth(linear.rows * linear.in * linear.out, threads);
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

}  // namespace imagen_fast
