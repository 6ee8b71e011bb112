#include "cpu/quick_gelu.h"

#include <algorithm>

namespace imagen_fast {

namespace {

// Values that one thread takes at a time.
constexpr std::int64_t BLOCK = 8192;

}  // namespace

void quick_gelu_forward(const BFloat16* x, std::int64_t count, BFloat16* y, int threads) {
    const auto work = IMAGEN_FAST_BEST_BF16(quick_gelu);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t first = 0; first < count; first += BLOCK)
        work(x + first, std::min(BLOCK, count - first), y + first);
}

void quick_gelu_backward(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x,
                         int threads) {
    const auto work = IMAGEN_FAST_BEST_BF16(quick_gelu_gradient);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t first = 0; first < count; first += BLOCK)
        work(d_y + first, x + first, std::min(BLOCK, count - first), d_x + first);
}

}  // namespace imagen_fast
