#include "cpu/adamw.h"

#include <algorithm>
#include <cmath>

namespace imagen_fast {

namespace {

// Small enough to share a large embedding among threads, large enough to hide the cost of a chunk.
constexpr std::int64_t chunk = 1 << 16;

struct Span {
    std::size_t tensor;
    std::int64_t from, to;
};

// The spans depend on the sizes only, never on the number of threads: so sums over them are repeatable.
template <class Size>
std::vector<Span> spans(std::size_t tensors, Size size) {
    std::vector<Span> result;
    for (std::size_t t = 0; t < tensors; ++t)
        for (std::int64_t from = 0; from < size(t); from += chunk)
            result.push_back({t, from, std::min(from + chunk, size(t))});
    return result;
}

}  // namespace

void adamw_step(const std::vector<Parameter>& parameters, const AdamwStep& step, int threads) {
    const auto update = IMAGEN_FAST_BEST(adamw_span);
    const auto work = spans(parameters.size(), [&](std::size_t t) { return parameters[t].gradient.size; });
    const auto count = static_cast<std::int64_t>(work.size());
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t i = 0; i < count; ++i)
        update(parameters[work[i].tensor], step, work[i].from, work[i].to);
}

double gradient_norm(const std::vector<Gradient>& gradients, int threads) {
    const auto squares = IMAGEN_FAST_BEST(sum_of_squares);
    const auto work = spans(gradients.size(), [&](std::size_t t) { return gradients[t].size; });
    const auto count = static_cast<std::int64_t>(work.size());
    std::vector<double> sums(work.size());
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t i = 0; i < count; ++i)
        sums[i] = squares(gradients[work[i].tensor], work[i].from, work[i].to);
    double total = 0;
    for (const double sum : sums) total += sum;
    return std::sqrt(total);
}

}  // namespace imagen_fast
