// Attention among the listed rows of each image, forward and backward.
//
// out = softmax(scale * q k^T) v, for every image and head by itself; over all listed keys, or over those
// that a query is said to see. Rows that are not listed are neither read nor written; a row with nothing to
// attend to gives zeros. The backward makes the probabilities again from the scores and two numbers a row.
// Every value is written once by one thread: the result does not depend on the number of threads.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"
#include "cpu/seen_keys.h"

namespace imagen_fast {

// [image, row, head, width] with any strides, in elements; the width is dense. Packed: batch_stride 0.
struct TokenView {
    void* data;
    std::int64_t batch_stride, row_stride, head_stride;
};

// The i-th row of image b is start + i, or start + index[b, i], for i < count. A negative index is no row: it
// counts as one of zeros that nobody sees.
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
    // Null: all queries see all keys. Otherwise the lists are one, an index that all images share, and
    // `pixels` is how many of its entries are rows.
    const SeenKeys* seen;
    std::int64_t pixels;

    // How many queries of a head have statistics.
    std::int64_t kept() const { return seen ? pixels : queries.longest; }
};

// Laid out like q, k and v.
struct AttentionGradients {
    TokenView q, k, v;
};

// `out` is laid out like q and holds zeros wherever a row is not listed or sees nothing. `statistics` gets,
// as [batch, heads, 2, kept()], of the i-th listed row, or of row i where the lists are one, the largest of
// its exponents scale * log2(e) * score, and one over the sum of 2^(exponent - largest). In one number, the
// logarithm of the whole sum, the largest would take the last bits of the rest.
void attention_forward(const Attention& problem, const TokenView& out, float* statistics, int threads);

// `out` and `d_out` are laid out like q; the gradients hold zeros wherever a row is not listed or sees
// nothing.
void attention_backward(const Attention& problem, const TokenView& out, const float* statistics,
                        const TokenView& d_out, const AttentionGradients& gradients, int threads);

// One image and head, and its own part of `statistics`; `workspace` holds at least the floats that
// `attention_workspace` says.
#define IMAGEN_FAST_DECLARE(set)                                                                         \
    namespace set {                                                                                      \
    /* How many queries are worked on at a time, and how many are summed before the next are read. */    \
    std::int64_t attention_block();                                                                      \
    std::int64_t attention_share(DType dtype);                                                           \
    std::int64_t attention_workspace(const Attention& problem);                                          \
    void attention_forward_one(const Attention& problem, const TokenView& out, float* statistics,        \
                               std::int64_t image, std::int64_t head, float* workspace);                 \
    void attention_backward_one(const Attention& problem, const TokenView& out, const float* statistics, \
                                const TokenView& d_out, const AttentionGradients& gradients,             \
                                std::int64_t image, std::int64_t head, float* workspace);                \
    }
IMAGEN_FAST_FOR_EACH_BF16_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
