#include "cpu/pixel_mse.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace imagen_fast {

namespace {

// How many rows the mean is over; at least 1, so that a mean over none is 0.
std::int64_t counted(const PixelMse& p) {
    std::int64_t count = p.batch * p.rows;
    if (p.keep) count = std::count(p.keep, p.keep + count, true);
    return std::max<std::int64_t>(count, 1);
}

// Calls work(row, prediction of that row, its target) for the rows that count and skip(row) for the rest.
template <class Work, class Skip>
void for_each_row(const PixelMse& p, int threads, Work work, Skip skip) {
    const std::int64_t across = p.image.width / p.patch, values = p.values();
    const auto gather = IMAGEN_FAST_BEST(gather_patch);
    const auto normalise = IMAGEN_FAST_BEST(normalise_patch);
    std::vector<float> targets(static_cast<std::size_t>(values) * threads);
#pragma omp parallel num_threads(threads)
    {
#if defined(_OPENMP)
        float* target = targets.data() + values * omp_get_thread_num();
#else
        float* target = targets.data();
#endif
#pragma omp for schedule(static)
        for (std::int64_t row = 0; row < p.batch * p.rows; ++row) {
            if (p.keep && !p.keep[row]) {
                skip(row);
                continue;
            }
            const std::int64_t b = row / p.rows, m = row % p.rows, number = p.index ? p.index[row] : m;
            const std::int64_t top = number / across * p.patch, left = number % across * p.patch;
            gather(p.image,
                   b * p.image.batch_stride + top * p.image.row_stride + left * p.image.column_stride,
                   p.patch, target);
            if (p.normalise) normalise(target, values, p.eps);
            const std::int64_t offset = (b * p.batch_stride + m * p.row_stride) * size_of(p.dtype);
            work(row, static_cast<const char*>(p.prediction) + offset, target);
        }
    }
}

}  // namespace

void check(const PixelMse& p) {
    if (p.patch < 1 || p.image.height % p.patch || p.image.width % p.patch)
        throw std::invalid_argument("the patch must divide the image's height and width");
    const std::int64_t patches = (p.image.height / p.patch) * (p.image.width / p.patch);
    if (!p.index && p.rows > patches) throw std::invalid_argument("more rows than the image has patches");
    if (p.index)
        for (std::int64_t i = 0; i < p.batch * p.rows; ++i)
            if (p.index[i] < 0 || p.index[i] >= patches)
                throw std::invalid_argument("an index lies outside the image's patches");
}

double pixel_mse_forward(const PixelMse& problem, float* loss, int threads) {
    const auto error = IMAGEN_FAST_BEST(mean_squared_error);
    for_each_row(
        problem, threads,
        [&](std::int64_t row, const void* prediction, const float* target) {
            loss[row] = error(prediction, problem.dtype, target, problem.values());
        },
        [&](std::int64_t row) { loss[row] = 0; });
    double sum = 0;
    for (std::int64_t row = 0; row < problem.batch * problem.rows; ++row) sum += loss[row];
    return sum / static_cast<double>(counted(problem));
}

void pixel_mse_backward(const PixelMse& problem, double d_loss, void* d_prediction, int threads) {
    const auto difference = IMAGEN_FAST_BEST(scaled_difference);
    const auto scale = static_cast<float>(
        d_loss * 2 / (static_cast<double>(counted(problem)) * static_cast<double>(problem.values())));
    const std::int64_t bytes = problem.values() * size_of(problem.dtype);
    char* out = static_cast<char*>(d_prediction);
    for_each_row(
        problem, threads,
        [&](std::int64_t row, const void* prediction, const float* target) {
            difference(prediction, problem.dtype, target, problem.values(), scale, out + row * bytes);
        },
        [&](std::int64_t row) { std::memset(out + row * bytes, 0, static_cast<std::size_t>(bytes)); });
}

}  // namespace imagen_fast
