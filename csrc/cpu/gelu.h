// GELU and its quick approximation, x * sigmoid(1.702 x), and their gradients: one pass over memory each,
// float32 arithmetic, as exact as bfloat16 can tell.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

// y [count] from x [count].
void gelu_forward(const BFloat16* x, std::int64_t count, bool quick, BFloat16* y, int threads);

// d_x [count] from d_y and x.
void gelu_backward(const BFloat16* d_y, const BFloat16* x, std::int64_t count, bool quick, BFloat16* d_x,
                   int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                         \
    namespace set {                                                                                      \
    void gelu(const BFloat16* x, std::int64_t count, BFloat16* y);                                       \
    void gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x);       \
    void quick_gelu(const BFloat16* x, std::int64_t count, BFloat16* y);                                 \
    void quick_gelu_gradient(const BFloat16* d_y, const BFloat16* x, std::int64_t count, BFloat16* d_x); \
    }
IMAGEN_FAST_FOR_EACH_BF16_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
