// Compiled once per instruction set; see instruction_set.h.
#include <cmath>

#include "cpu/adamw.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

template <class G, bool rounds>
static inline void update(const G* __restrict gradient, float* __restrict master, float* __restrict exp_avg,
                          float* __restrict exp_avg_sq, BFloat16* __restrict weight, std::int64_t n,
                          const AdamwStep& step, double lr, double weight_decay) {
    // Rounded once, after the arithmetic among the constants.
    const auto beta2 = static_cast<float>(step.beta2), eps = static_cast<float>(step.eps);
    const auto rest1 = static_cast<float>(1 - step.beta1), rest2 = static_cast<float>(1 - step.beta2);
    const auto scale = static_cast<float>(step.gradient_scale);
    const auto step_size = static_cast<float>(lr / step.bias_correction1);
    const auto correction = static_cast<float>(1 / step.bias_correction2_sqrt);
    const auto decay = static_cast<float>(lr * weight_decay);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
        const float g = scale * to_float(gradient[i]);
        const float m = exp_avg[i] + rest1 * (g - exp_avg[i]);
        const float v = beta2 * exp_avg_sq[i] + rest2 * g * g;
        float p = master[i];
        p -= decay * p;
        p -= step_size * m / (std::sqrt(v) * correction + eps);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        master[i] = p;
        if (rounds) store(p, weight + i);
    }
}

template <class G>
static inline void update_span(const Parameter& p, const AdamwStep& step, std::int64_t from, std::int64_t n) {
    const G* gradient = static_cast<const G*>(p.gradient.data) + from;
    float *master = p.master + from, *exp_avg = p.exp_avg + from, *exp_avg_sq = p.exp_avg_sq + from;
    if (p.weight)
        update<G, true>(gradient, master, exp_avg, exp_avg_sq, p.weight + from, n, step, p.lr,
                        p.weight_decay);
    else
        update<G, false>(gradient, master, exp_avg, exp_avg_sq, nullptr, n, step, p.lr, p.weight_decay);
}

void adamw_span(const Parameter& p, const AdamwStep& step, std::int64_t from, std::int64_t to) {
    if (p.gradient.dtype == DType::float32) return update_span<float>(p, step, from, to - from);
    update_span<BFloat16>(p, step, from, to - from);
}

template <class G>
static inline double squares(const G* gradient, std::int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) {
        const double g = to_float(gradient[i]);
        sum += g * g;
    }
    return sum;
}

double sum_of_squares(const Gradient& gradient, std::int64_t from, std::int64_t to) {
    if (gradient.dtype == DType::float32)
        return squares(static_cast<const float*>(gradient.data) + from, to - from);
    return squares(static_cast<const BFloat16*>(gradient.data) + from, to - from);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
