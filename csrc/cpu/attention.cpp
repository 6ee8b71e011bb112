#include "cpu/attention.h"

#include <cstdlib>
#include <memory>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace imagen_fast {

namespace {

template <class Work>
void for_each_head(const Attention& problem, int threads, Work work) {
    const std::int64_t floats = IMAGEN_FAST_BEST_BF16(attention_workspace)(problem);
    // Images of one length take equally long; others are handed out as threads become free. A thread takes
    // neighbouring heads: those share pages, and it asks for the next head's rows itself.
    const bool ragged = problem.queries.spans || problem.keys.spans;
    const std::int64_t heads = problem.batch * problem.heads, turns = ragged ? 16 : 1;
    const int chunk = static_cast<int>(heads / (threads * turns) + 1);
    // Whole cache lines, so that vectors never straddle two. Allocated here, where an exception can leave.
    const std::int64_t each = (floats + 15) / 16 * 16;
    const std::unique_ptr<float, decltype(&std::free)> workspace(
        static_cast<float*>(std::aligned_alloc(64, static_cast<std::size_t>(each) * threads * sizeof(float))),
        &std::free);
    if (!workspace) throw std::bad_alloc();
#pragma omp parallel num_threads(threads)
    {
#if defined(_OPENMP)
        float* own = workspace.get() + each * omp_get_thread_num();
#else
        float* own = workspace.get();
#endif
#pragma omp for schedule(dynamic, chunk)
        for (std::int64_t one = 0; one < heads; ++one) work(one / problem.heads, one % problem.heads, own);
    }
}

}  // namespace

void attention_forward(const Attention& problem, const TokenView& out, float* statistics, int threads) {
    const auto forward = IMAGEN_FAST_BEST_BF16(attention_forward_one);
    for_each_head(problem, threads, [&](std::int64_t image, std::int64_t head, float* workspace) {
        float* own = statistics + (image * problem.heads + head) * 2 * problem.kept();
        forward(problem, out, own, image, head, workspace);
    });
}

void attention_backward(const Attention& problem, const TokenView& out, const float* statistics,
                        const TokenView& d_out, const AttentionGradients& gradients, int threads) {
    const auto backward = IMAGEN_FAST_BEST_BF16(attention_backward_one);
    for_each_head(problem, threads, [&](std::int64_t image, std::int64_t head, float* workspace) {
        const float* own = statistics + (image * problem.heads + head) * 2 * problem.kept();
        backward(problem, out, own, d_out, gradients, image, head, workspace);
    });
}

}  // namespace imagen_fast
