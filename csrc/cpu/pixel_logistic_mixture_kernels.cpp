// The discretised mixture of logistics of a few rows, and the gradient for what was projected. Compiled once
// per instruction set; see instruction_set.h.
//
// A row has some thirty numbers only, in three groups that no register fits: they are turned, a lane a row.
#include <cmath>

#include "cpu/exponentials.h"
#include "cpu/predicted_rows.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

// As imagen_fast.ops.reference has it.
constexpr float LEAST_LOG_SCALE = -7.0f;

// log S(x) of the logistic function S, and S(-x), which is its derivative.
struct LogLogistic {
    Floats value, slope;

    explicit LogLogistic(Floats x) {
        const Floats power = exp(x > 0.0f ? -x : x), inverse = 1.0f / (1.0f + power);
        value = (x > 0.0f ? Floats{} : x) - log1p(power);
        slope = x > 0.0f ? power * inverse : inverse;
    }
};

// log((1 - e^-d) / d) + d / 2, by its series up to 1; and the derivative times d of log(1 - e^-d).
struct LogWidth {
    Floats value, slope;

    LogWidth(Floats d, Floats log_d) {
        const Floats dd = d * d;
        const Floats series = dd * (4.1666667e-2f + dd * (-3.4722222e-4f + dd * 5.5114638e-6f));
        const Floats of_slope =
            1.0f - 0.5f * d + dd * (8.3333333e-2f + dd * (-1.3888889e-3f + dd * 3.3068783e-5f));
        const Floats power = exp(-d), rest = 1.0f - power;
        value = d < 1.0f ? log_d - 0.5f * d + series : log(d < 1.0f ? all(1.0f) : rest);
        slope = d < 1.0f ? of_slope : d * power / rest;
    }
};

// What one logistic says of the targets: the logarithm of their bin's probability, and its derivatives.
struct Bin {
    Floats log_bin, by_mean, by_log_scale;

    // `first` and `last` are all ones where the target is that level; `half` is half a level's width.
    Bin(Floats x, Floats mean, Floats given, Ints first, Ints last, float half) {
        const Floats log_scale = given < LEAST_LOG_SCALE ? all(LEAST_LOG_SCALE) : given;
        const Floats inverse = exp(-log_scale);
        const Floats upper = (x + half - mean) * inverse, lower = (x - half - mean) * inverse;
        const LogLogistic below(upper), above(-lower);
        const LogWidth width(2.0f * half * inverse, std::log(2.0f * half) - log_scale);
        const Floats zero{}, of_upper = last ? zero : below.slope, of_lower = first ? zero : above.slope;
        log_bin = first ? below.value : last ? above.value : below.value + above.value + width.value;
        by_mean = inverse * (of_lower - of_upper);
        by_log_scale = lower * of_lower - upper * of_upper - (first | last ? zero : width.slope);
        by_log_scale = given < LEAST_LOG_SCALE ? zero : by_log_scale;
    }
};

template <class W>
struct Mixture {
    const LogisticMixture& problem;
    const Likelihoods& wanted;
    float* turned;  // [3 K in whole registers][LANES]
    float* bins;    // [K][LANES]

    double operator()(const RowGroup& group, const GradientGroup<W>* gradients) const {
        const std::int64_t outputs = problem.rows.outputs, many = outputs / 3;
        turn(group, outputs);
        float level[LANES] = {};
        for (int r = 0; r < group.many; ++r) level[r] = static_cast<float>(group.target[r]);
        const Floats target = load(level), top = all(static_cast<float>(problem.rows.levels - 1));
        const float half = 1.0f / static_cast<float>(problem.rows.levels - 1);
        const Floats x = 2.0f * half * target - 1.0f;
        const Ints first = target == 0.0f, last = target == top;
        const auto at = [&](std::int64_t j) { return turned + j * LANES; };

        // The shares' logits; with the bins' logarithms added; and derivatives in place of means and scales.
        Floats most = all(-3.4e38f), most_joint = most;
        for (std::int64_t k = 0; k < many; ++k) most = larger(most, load(at(k)));
        for (std::int64_t k = 0; k < many; ++k) {
            const Bin bin(x, load(at(many + k)), load(at(2 * many + k)), first, last, half);
            const Floats logit = load(at(k)) - most, joint = logit + bin.log_bin;
            most_joint = larger(most_joint, joint);
            store(at(k), logit);
            store(bins + k * LANES, joint);
            store(at(many + k), bin.by_mean);
            store(at(2 * many + k), bin.by_log_scale);
        }
        Floats sums[4] = {}, joint_sums[4] = {};  // partial ones, against rounding errors
        for (std::int64_t k = 0; k < many; ++k) {
            const Floats share = exp(load(at(k))), joint = exp(load(bins + k * LANES) - most_joint);
            sums[k % 4] += share;
            joint_sums[k % 4] += joint;
            store(at(k), share);
            store(bins + k * LANES, joint);
        }
        const auto added = [](const Floats(&s)[4]) { return (s[0] + s[1]) + (s[2] + s[3]); };
        const Floats sum = added(sums), sum_joint = added(joint_sums);
        const Floats loss = log(sum) - log(sum_joint) - most_joint;
        const double total = wanted.d_losses ? 0.0 : give_losses(wanted, group, loss);
        if (gradients) {
            const Floats d_loss = incoming(wanted, group);
            for (std::int64_t k = 0; k < many; ++k) {
                const Floats posterior = d_loss * load(bins + k * LANES) / sum_joint;
                store(at(k), d_loss * load(at(k)) / sum - posterior);
                store(at(many + k), -posterior * load(at(many + k)));
                store(at(2 * many + k), -posterior * load(at(2 * many + k)));
            }
            put_turned(group, *gradients, outputs);
        }
        return total;
    }

    void turn(const RowGroup& group, std::int64_t outputs) const {
        for (std::int64_t j = 0; j < outputs; j += LANES) {
            Floats tile[LANES];
            for (int r = 0; r < LANES; ++r)
                tile[r] = r < group.many ? load(group.z + r * group.z_row + j) : Floats{};
            transpose(tile);
            for (int i = 0; i < LANES; ++i) store(turned + (j + i) * LANES, tile[i]);
        }
    }

    void put_turned(const RowGroup& group, const GradientGroup<W>& gradients, std::int64_t outputs) const {
        for (std::int64_t j = 0; j < outputs; j += LANES) {
            Floats tile[LANES];
            for (int i = 0; i < LANES; ++i)
                tile[i] = j + i < outputs ? load(turned + (j + i) * LANES) : Floats{};
            transpose(tile);
            for (int r = 0; r < group.many; r += 2)
                gradients.put(r, j, tile[r], r + 1 < group.many ? tile[r + 1] : Floats{});
        }
    }
};

template <class T>
void share_of(const LogisticMixture& problem, const Likelihoods& wanted, const float* packed,
              float* workspace, Share& share) {
    const std::int64_t outputs = problem.rows.outputs;
    float* bins = workspace + up(outputs, LANES) * LANES;
    const Mixture<typename WordsOf<T>::type> mixture{problem, wanted, workspace, bins};
    through_share<T>(problem.rows, wanted, packed, bins + outputs / 3 * LANES, share, mixture);
}

}  // namespace

void logistic_mixture_share(const LogisticMixture& problem, const Likelihoods& wanted, const float* packed,
                            float* workspace, Share& share) {
    if (problem.rows.dtype == DType::float32)
        return share_of<float>(problem, wanted, packed, workspace, share);
    share_of<BFloat16>(problem, wanted, packed, workspace, share);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
