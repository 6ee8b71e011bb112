#include "cpu/powers_of_two.h"

namespace imagen_fast {

void powers_of_two(const float* x, std::int64_t count, float* y, bool half, int repeats, int threads) {
    const auto work = IMAGEN_FAST_BEST(powers_of_two_part);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; ++part) {
        const std::int64_t first = count * part / threads, end = count * (part + 1) / threads;
        for (int i = 0; i < repeats; ++i) work(x + first, end - first, y + first, half);
    }
}

}  // namespace imagen_fast
