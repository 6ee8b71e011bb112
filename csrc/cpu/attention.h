// Attention among the listed rows of each image, forward and backward, for short sequences.
//
// out = softmax(scale * q k^T) v, for every image and head by itself. Rows that are not listed are neither
// read nor written; a row with nothing to attend to gives zeros. The backward makes the probabilities again,
// so nothing is saved, and every value is written once by one thread: the result does not depend on the
// number of threads.
#pragma once

#include <cstdint>

#include "common/number_types.h"

namespace imagen_fast {

// [image, row, head, width] with any strides, in elements; the width is dense. Packed: batch_stride 0.
struct TokenView {
    void* data;
    std::int64_t batch_stride, row_stride, head_stride;
};

// The i-th row of image b is start + i, or start + index[b, i], for i < count.
struct RowList {
    const std::int32_t* spans;  // [batch, 2] of (start, count), or null: all `longest` rows
    const std::int32_t* index;  // [batch, index_stride] or null
    std::int64_t index_stride, longest;
};

struct Attention {
    TokenView q, k, v;
    RowList queries, keys;
    std::int64_t batch, heads, width;
    DType dtype;
    float scale;
};

// Whether this processor has the instructions that these kernels are written for.
bool attention_is_native(DType dtype);

// `out` is laid out like q and holds zeros.
void attention_forward(const Attention& problem, const TokenView& out, int threads);

// `d_out` is laid out like q; the gradients like q, k and v, holding zeros.
void attention_backward(const Attention& problem, const TokenView& d_out, const TokenView& d_q,
                        const TokenView& d_k, const TokenView& d_v, int threads);

namespace avx512_bf16 {
// One image and head; `workspace` holds at least the floats that `attention_workspace` says.
std::int64_t attention_workspace(const Attention& problem, bool backward);
void attention_forward_one(const Attention& problem, const TokenView& out, std::int64_t image,
                           std::int64_t head, float* workspace);
void attention_backward_one(const Attention& problem, const TokenView& d_out, const TokenView& d_q,
                            const TokenView& d_k, const TokenView& d_v, std::int64_t image, std::int64_t head,
                            float* workspace);
}  // namespace avx512_bf16

}  // namespace imagen_fast
