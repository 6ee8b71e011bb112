// Softmax and negative log-likelihood of a few rows, and the gradient for what was projected. Compiled once
// per instruction set; see instruction_set.h.
#include "cpu/predicted_rows.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

// Of the exponentials: for bfloat16 an error of 2e-6, far below what the rounding of its products leaves.
template <class T>
constexpr int EXP2_DEGREE = std::is_same_v<T, BFloat16> ? 5 : 7;

template <class T, class W>
struct Softmax {
    const CrossEntropy& problem;
    const Likelihoods& wanted;
    std::int64_t lanes;  // of the levels, whole registers

    explicit Softmax(const CrossEntropy& problem, const Likelihoods& wanted)
        : problem(problem), wanted(wanted), lanes(up(problem.rows.outputs, LANES)) {}

    // exp(-(v - target)^2 / (2 sigma^2)) at v = 0, 1, ...
    const float* gaussian(std::int32_t target) const {
        return problem.gaussian + problem.rows.levels - 1 - target;
    }

    double operator()(const RowGroup& group, const GradientGroup<W>* gradients) const {
        const std::int64_t levels = problem.rows.levels;
        const bool backward = wanted.d_losses != nullptr;
        Floats row[LANES];
        float shift[LANES] = {}, at_target[LANES] = {}, inverse_sum[LANES] = {};

        // What is taken from z before the exponential: the largest of a row, or log Z where it is known.
        for (int r = 0; r < LANES; ++r) row[r] = Floats{};
        if (!backward) {
            for (int r = 0; r < group.many; ++r) {
                const float* z = group.z + r * group.z_row;
                row[r] = load(z);
                for (std::int64_t v = LANES; v < lanes; v += LANES) row[r] = larger(row[r], load(z + v));
            }
            store(shift, across_lanes(row, larger));
        }
        for (int r = 0; r < group.many; ++r) {
            if (backward) shift[r] = wanted.log_z[group.row[r]];
            at_target[r] = group.z[r * group.z_row + group.target[r]];
            if (problem.gaussian) inverse_sum[r] = problem.inverse_sum[group.target[r]];
        }

        // The exponentials in place of z; and the sums over levels of z, for targets that are spread.
        Floats sums[LANES], of_z[LANES], expected[LANES];
        for (int r = 0; r < LANES; ++r) {
            sums[r] = of_z[r] = expected[r] = Floats{};
            if (r >= group.many) continue;
            float* z = group.z + r * group.z_row;
            const Floats from = all(shift[r]);
            if (problem.label_smoothing > 0) {
                float same[LANES];
                store(same, from);
                for (std::int64_t v = 0; v < lanes; v += LANES)
                    of_z[r] += load(z + v, levels - v) - load(same, levels - v);
            }
            if (problem.gaussian)
                for (std::int64_t v = 0; v < lanes; v += LANES)
                    expected[r] +=
                        (load(z + v, levels - v) - from) * load(gaussian(group.target[r]) + v, levels - v);
            for (std::int64_t v = 0; v < lanes; v += LANES) {
                const Floats e = exp2<EXP2_DEGREE<T>>((load(z + v) - from) * LOG2_E);
                store(z + v, e);
                sums[r] += e;
            }
        }
        const auto add = [](Floats a, Floats b) { return a + b; };
        const Floats spread = all(problem.label_smoothing / static_cast<float>(levels));
        const Floats on_target = all(1.0f - problem.label_smoothing);
        const Floats from = load(shift);
        Floats sum = backward ? all(1.0f) : across_lanes(sums, add);
        for (int r = group.many; r < LANES; ++r) sum[r] = 1.0f;
        const Floats log_sum = log2(sum) * LN_2, log_z = from + log_sum;

        double total = 0;
        if (!backward) {
            // sum over v of t[v] (z[v] - shift)
            Floats wanted_z =
                problem.gaussian ? across_lanes(expected, add) * load(inverse_sum) : load(at_target) - from;
            wanted_z *= on_target;
            if (problem.label_smoothing > 0) wanted_z += spread * across_lanes(of_z, add);
            total = give_losses(wanted, group, log_sum - wanted_z + problem.z_loss * log_z * log_z);
            if (wanted.log_z) {
                float lanes_of[LANES];
                store(lanes_of, log_z);
                for (int r = 0; r < group.many; ++r) wanted.log_z[group.row[r]] = lanes_of[r];
            }
        }
        if (gradients) differentiate(group, *gradients, sum, log_z);
        return total;
    }

    // d_z[v] = d_loss ((1 + 2 z_loss log Z) p[v] - t[v])
    void differentiate(const RowGroup& group, const GradientGroup<W>& gradients, Floats sum,
                       Floats log_z) const {
        const Floats d_loss = incoming(wanted, group);
        float of_exp[LANES], everywhere[LANES], on_target[LANES];
        store(of_exp, d_loss * (1.0f + 2.0f * problem.z_loss * log_z) / sum);
        store(everywhere, d_loss * (problem.label_smoothing / static_cast<float>(problem.rows.levels)));
        store(on_target, d_loss * (1.0f - problem.label_smoothing));
        for (int r = 0; r < group.many; r += 2) {
            const bool pair = r + 1 < group.many;
            const int next = pair ? r + 1 : r;
            const float* e[2] = {group.z + r * group.z_row, group.z + next * group.z_row};
            const Floats factor[2] = {all(of_exp[r]), all(pair ? of_exp[next] : 0.0f)};
            const Floats away[2] = {all(everywhere[r]), all(pair ? everywhere[next] : 0.0f)};
            if (problem.gaussian) {
                const float* g[2] = {gaussian(group.target[r]), gaussian(group.target[next])};
                const Floats of_g[2] = {
                    all(on_target[r] * problem.inverse_sum[group.target[r]]),
                    all(pair ? on_target[next] * problem.inverse_sum[group.target[next]] : 0.0f)};
                for (std::int64_t v = 0; v < lanes; v += LANES)
                    gradients.put(r, v, load(e[0] + v) * factor[0] - away[0] - load(g[0] + v) * of_g[0],
                                  load(e[1] + v) * factor[1] - away[1] - load(g[1] + v) * of_g[1]);
                continue;
            }
            for (std::int64_t v = 0; v < lanes; v += LANES)
                gradients.put(r, v, load(e[0] + v) * factor[0] - away[0],
                              load(e[1] + v) * factor[1] - away[1]);
            for (int i = r; i <= next; ++i) {
                const std::int32_t at = group.target[i];
                const float there = group.z[i * group.z_row + at] * of_exp[i];
                gradients.replace(i, at, there - everywhere[i], there - (everywhere[i] + on_target[i]));
            }
        }
    }
};

template <class T>
void share_of(const CrossEntropy& problem, const Likelihoods& wanted, const float* packed, float* workspace,
              Share& share) {
    using W = typename WordsOf<T>::type;
    through_share<T>(problem.rows, wanted, packed, workspace, share, Softmax<T, W>(problem, wanted));
}

}  // namespace

void cross_entropy_share(const CrossEntropy& problem, const Likelihoods& wanted, const float* packed,
                         float* workspace, Share& share) {
    if (problem.rows.dtype == DType::float32)
        return share_of<float>(problem, wanted, packed, workspace, share);
    share_of<BFloat16>(problem, wanted, packed, workspace, share);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
