// Layer normalisation of bfloat16 rows with float32 statistics and sums.
//
// PyTorch's own backward adds the gradients of weight and bias in bfloat16 over all rows of a batch, which
// loses most of them (measured: a relative error of 0.7 at 3,000 rows). Here they are added in float32, in
// blocks of rows that do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

struct LayerNorm {
    const BFloat16* x;  // [rows, width], dense
    const BFloat16* weight;
    const BFloat16* bias;
    std::int64_t rows, width;
    float eps;
};

// y [rows, width]; mean and one over the deviation of each row go to statistics [rows, 2].
void layer_norm_forward(const LayerNorm& norm, BFloat16* y, float* statistics, int threads);

// d_x [rows, width], d_weight and d_bias [width] from d_y and what the forward left.
void layer_norm_backward(const LayerNorm& norm, const BFloat16* d_y, const float* statistics, BFloat16* d_x,
                         BFloat16* d_weight, BFloat16* d_bias, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                    \
    namespace set {                                                                                 \
    void layer_norm_row(const LayerNorm& norm, std::int64_t row, float* wide, BFloat16* y,          \
                        float* statistics);                                                         \
    /* Adds the rows' part to sums [2, width]: weight, then bias; `wide` holds 2 rows of floats. */ \
    void layer_norm_backward_row(const LayerNorm& norm, std::int64_t row, const BFloat16* d_y,      \
                                 const float* statistics, float* wide, BFloat16* d_x, float* sums); \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
