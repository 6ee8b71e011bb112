// The negative log-likelihood of pixels from the vectors that predict them: projection, likelihood and the
// gradients of both in one pass over the rows.
//
//     z = hidden weight^T + bias,    loss = -log p(target | z)
//
// Two likelihoods share everything but the middle: a softmax over levels, and a discretised mixture of
// logistics. What is projected exists in float32 for a few rows at a time, in the first caches. Rows are
// dealt with in shares that depend on the shape only, and what they give to the gradients of weight and bias
// is added in the order of the shares: the result does not depend on the number of threads. A row that does
// not count is not read.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

enum class Integer : int { uint8 = 0, int8 = 1, int16 = 2, int32 = 3, int64 = 4 };

struct PredictedRows {
    const void* hidden;  // [groups, group_rows, width], the width dense
    std::int64_t groups, group_rows, width;
    std::int64_t group_stride, row_stride;  // of `hidden`, in elements
    const void* weight;                     // [outputs, width], dense
    const void* bias;                       // [outputs] or null
    std::int64_t outputs;
    DType dtype;
    const void* target;  // [groups, group_rows], dense
    Integer target_type;
    const bool* keep;  // [groups, group_rows] or null: which rows count
    std::int64_t ignore_index, levels;

    std::int64_t rows() const { return groups * group_rows; }
};

struct CrossEntropy {
    PredictedRows rows;
    float label_smoothing, z_loss, sigma;
    // Of the Gaussian targets: exp(-d^2 / (2 sigma^2)) of distances 1 - V to V - 1, with room for a register
    // behind, and one over the sum for each target; both null without.
    const float* gaussian;
    const float* inverse_sum;
};

struct LogisticMixture {
    PredictedRows rows;
};

// What is asked for. The gradients are those of `factor` times the sum of all losses, weighed by `d_losses`
// where there are some.
struct Likelihoods {
    float* losses;          // [rows] or null; 0 where a row does not count
    float* log_z;           // [rows] or null; of the cross-entropy: made, or given where there are d_losses
    const float* d_losses;  // [rows] or null
    void* d_hidden;         // [rows, width] of the type of `hidden`, dense; null: no gradients
    float* d_weight;        // [outputs, width]
    float* d_bias;          // [outputs]
    float factor;           // applied to finished sums, so that it adds no rounding to their terms
};

// The sum of the losses. Raise std::invalid_argument where a target that counts is none of the levels.
double cross_entropy(CrossEntropy problem, const Likelihoods& wanted, int threads);
double logistic_mixture(const LogisticMixture& problem, const Likelihoods& wanted, int threads);

// One share of the rows: those from `first` to before `end`.
struct Share {
    std::int64_t first, end;
    float* d_weight;  // the share's part, [outputs, lanes of the width]
    double* d_bias;   // the share's part, [outputs]; null without a bias
    double loss;
    bool bad_target;  // is there one, which it is
    std::int64_t bad;
};

// Sizes are in floats. `packed` is the weight as the products want it, made once a call.
#define IMAGEN_FAST_DECLARE(set)                                                                          \
    namespace set {                                                                                       \
    std::int64_t packed_weight_size(const PredictedRows& rows);                                           \
    void pack_weight(const PredictedRows& rows, float* packed);                                           \
    std::int64_t share_workspace(const PredictedRows& rows);                                              \
    std::int64_t share_gradient_row(const PredictedRows& rows);                                           \
    std::int64_t share_gradient_size(const PredictedRows& rows);                                          \
    void cross_entropy_share(const CrossEntropy& problem, const Likelihoods& wanted, const float* packed, \
                             float* workspace, Share& share);                                             \
    void logistic_mixture_share(const LogisticMixture& problem, const Likelihoods& wanted,                \
                                const float* packed, float* workspace, Share& share);                     \
    }
IMAGEN_FAST_FOR_EACH_BF16_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
