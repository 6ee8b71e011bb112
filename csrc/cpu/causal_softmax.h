// Softmax of scores over the keys that each query of a grid sees. Scores of other keys are never read; their
// probabilities and gradients are written as zeros.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"
#include "cpu/window.h"

namespace imagen_fast {

// `layers` matrices [pixels, pixels], rows of which are dense.
struct ScoreView {
    void* data;
    std::int64_t layer_stride, row_stride;  // in elements
};

void causal_softmax_forward(const Window& window, std::int64_t layers, DType dtype, const ScoreView& scores,
                            const ScoreView& p, int threads);

// d_scores = p (d_p - sum of p d_p).
void causal_softmax_backward(const Window& window, std::int64_t layers, DType dtype, const ScoreView& p,
                             const ScoreView& d_p, const ScoreView& d_scores, int threads);

// Keys from `first` to before `end` are seen, all that a row sees in ascending runs.
struct KeySpan {
    std::int64_t first, end;
};

#define IMAGEN_FAST_DECLARE(set)                                                                       \
    namespace set {                                                                                    \
    void causal_softmax_row(const KeySpan* spans, std::int64_t many, std::int64_t pixels, DType dtype, \
                            const void* scores, void* p);                                              \
    void causal_softmax_backward_row(const KeySpan* spans, std::int64_t many, std::int64_t pixels,     \
                                     DType dtype, const void* p, const void* d_p, void* d_scores);     \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
