#include "cpu/gelu.h"

#include <algorithm>

namespace imagen_fast {

namespace {

// Values that one thread takes at a time.
constexpr std::int64_t BLOCK = 8192;

}  // namespace

void gelu_forward(const BFloat16* x, std::int64_t count, bool quick, BFloat16* y, int threads) {
    const auto work = quick ? IMAGEN_FAST_BEST_BF16(quick_gelu) : IMAGEN_FAST_BEST_BF16(gelu);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t first = 0; first < count; first += BLOCK)
        work(x + first, std::min(BLOCK, count - first), y + first);
}

void gelu_backward(const BFloat16* d_y, const BFloat16* x, std::int64_t count, bool quick, BFloat16* d_x,
                   int threads) {
    const auto work =
        quick ? IMAGEN_FAST_BEST_BF16(quick_gelu_gradient) : IMAGEN_FAST_BEST_BF16(gelu_gradient);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t first = 0; first < count; first += BLOCK)
        work(d_y + first, x + first, std::min(BLOCK, count - first), d_x + first);
}

}  // namespace imagen_fast
