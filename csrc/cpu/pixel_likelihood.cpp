#include "cpu/pixel_likelihood.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace imagen_fast {

namespace {

using Floats = std::unique_ptr<float, decltype(&std::free)>;

// Whole cache lines, so that vectors never straddle two.
std::int64_t lines(std::int64_t floats) { return (floats + 15) / 16 * 16; }

Floats allocate(std::int64_t floats) {
    Floats memory(static_cast<float*>(
                      std::aligned_alloc(64, static_cast<std::size_t>(lines(floats + 1)) * sizeof(float))),
                  &std::free);
    if (!memory) throw std::bad_alloc();
    return memory;
}

// As many shares as keep the processors of a large machine busy, of a thousand rows at least, with the
// gradients of their weights in 16 MB; never fewer than 16 for that.
std::int64_t count_shares(const PredictedRows& p, std::int64_t gradient_size) {
    const std::int64_t in_memory = (std::int64_t{4} << 20) / std::max<std::int64_t>(gradient_size, 1);
    const std::int64_t most = std::clamp<std::int64_t>(in_memory, 16, 128);
    return std::clamp<std::int64_t>(p.rows() / 1024, 1, most);
}

// Adds the shares' parts in their order, times the factor.
void add_shares(const PredictedRows& p, const Likelihoods& wanted, const std::vector<Share>& shares,
                int threads) {
    const std::int64_t row_size = IMAGEN_FAST_BEST_BF16(share_gradient_row)(p);
    const auto add = [&](std::int64_t from, std::int64_t n, float* to) {
        std::copy_n(shares[0].d_weight + from, n, to);
        for (std::size_t s = 1; s < shares.size(); ++s) {
            const float* part = shares[s].d_weight + from;
            for (std::int64_t i = 0; i < n; ++i) to[i] += part[i];
        }
        for (std::int64_t i = 0; i < n; ++i) to[i] *= wanted.factor;
    };
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t v = 0; v < p.outputs; ++v) add(v * row_size, p.width, wanted.d_weight + v * p.width);
    for (std::int64_t v = 0; p.bias && v < p.outputs; ++v) {
        double sum = 0;
        for (const Share& share : shares) sum += share.d_bias[v];
        wanted.d_bias[v] = static_cast<float>(sum) * wanted.factor;
    }
}

// Calls work(packed weight, workspace, share) for every share of the rows.
template <class Work>
double in_shares(const PredictedRows& p, const Likelihoods& wanted, int threads, Work work) {
    const std::int64_t part = lines(IMAGEN_FAST_BEST_BF16(share_gradient_size)(p));
    const std::int64_t shares = count_shares(p, part), each = (p.rows() + shares - 1) / shares;
    const std::int64_t workspace_size = lines(IMAGEN_FAST_BEST_BF16(share_workspace)(p));
    // Allocated here, where an exception can leave.
    const Floats packed = allocate(IMAGEN_FAST_BEST_BF16(packed_weight_size)(p));
    const Floats workspace = allocate(workspace_size * threads);
    const Floats parts = allocate(wanted.d_hidden ? part * shares : 0);
    std::vector<double> biases(static_cast<std::size_t>(wanted.d_hidden && p.bias ? shares * p.outputs : 0));
    IMAGEN_FAST_BEST_BF16(pack_weight)(p, packed.get());
    std::vector<Share> all(static_cast<std::size_t>(shares));
#pragma omp parallel num_threads(threads)
    {
#if defined(_OPENMP)
        float* own = workspace.get() + workspace_size * omp_get_thread_num();
#else
        float* own = workspace.get();
#endif
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t s = 0; s < shares; ++s) {
            Share& share = all[static_cast<std::size_t>(s)];
            share = {std::min(s * each, p.rows()),
                     std::min((s + 1) * each, p.rows()),
                     wanted.d_hidden ? parts.get() + s * part : nullptr,
                     biases.empty() ? nullptr : biases.data() + s * p.outputs,
                     0.0,
                     false,
                     0};
            work(packed.get(), own, share);
        }
    }
    double loss = 0;
    for (const Share& share : all) {
        if (share.bad_target)
            throw std::invalid_argument("targets must be 0 to " + std::to_string(p.levels - 1) + ", not " +
                                        std::to_string(share.bad));
        loss += share.loss;
    }
    if (wanted.d_hidden) add_shares(p, wanted, all, threads);
    return loss;
}

// exp(-d^2 / (2 sigma^2)) for d from 1 - V to V - 1 and some zeros, and one over its sum around each target.
struct Gaussian {
    std::vector<float> power, inverse_sum;

    Gaussian(std::int64_t levels, float sigma)
        : power(static_cast<std::size_t>(2 * levels + 63)), inverse_sum(static_cast<std::size_t>(levels)) {
        std::vector<double> below(static_cast<std::size_t>(2 * levels));  // sums of all before
        for (std::int64_t i = 0; i < 2 * levels - 1; ++i) {
            const double distance = static_cast<double>(i + 1 - levels) / static_cast<double>(sigma);
            const double value = std::exp(-0.5 * distance * distance);
            power[i] = static_cast<float>(value);
            below[i + 1] = below[i] + value;
        }
        for (std::int64_t t = 0; t < levels; ++t) {
            const std::int64_t first = levels - 1 - t;
            inverse_sum[t] = static_cast<float>(1.0 / (below[first + levels] - below[first]));
        }
    }
};

}  // namespace

double cross_entropy(CrossEntropy problem, const Likelihoods& wanted, int threads) {
    const Gaussian gaussian(problem.sigma > 0 ? problem.rows.levels : 0, problem.sigma);
    problem.gaussian = problem.sigma > 0 ? gaussian.power.data() : nullptr;
    problem.inverse_sum = problem.sigma > 0 ? gaussian.inverse_sum.data() : nullptr;
    const auto share = IMAGEN_FAST_BEST_BF16(cross_entropy_share);
    return in_shares(problem.rows, wanted, threads, [&](const float* packed, float* workspace, Share& own) {
        share(problem, wanted, packed, workspace, own);
    });
}

double logistic_mixture(const LogisticMixture& problem, const Likelihoods& wanted, int threads) {
    const auto share = IMAGEN_FAST_BEST_BF16(logistic_mixture_share);
    return in_shares(problem.rows, wanted, threads, [&](const float* packed, float* workspace, Share& own) {
        share(problem, wanted, packed, workspace, own);
    });
}

}  // namespace imagen_fast
