// What a transformer computes a few tokens at a time, while an image is generated: linear layers whose
// weights are laid out once, attention to the keys and values kept so far, and blocks of both. All float32.
//
// Every value is the sum of its own products in one order, whatever else is in the batch: an image comes out
// the same, bit by bit, with and without others beside it, and at any number of threads.
#pragma once

#include <cstdint>

#include "cpu/instruction_set.h"

namespace imagen_fast {

// Columns of a weight that lie together, a row of them for each input: what a tile of a product reads is
// dense.
constexpr std::int64_t PANEL = 32;

// The floats that a weight [out, in] takes, packed.
std::int64_t packed_size(std::int64_t out, std::int64_t in);
void pack_weight(const float* weight, std::int64_t out, std::int64_t in, float* packed);

enum class Activation { none, gelu, quick_gelu };

struct LinearLayer {
    const float* weight;  // packed
    const float* bias;    // [out], or null
    std::int64_t in, out;
};

// y = activation(x weight^T + bias), or what that adds to y.
struct PackedLinear {
    LinearLayer layer;
    const float* x;  // [rows, in], dense
    std::int64_t rows;
    float* y;  // [rows, out], dense
    Activation activation = Activation::none;
    bool add = false;
};

void packed_linear(const PackedLinear& linear, int threads);

// Keys of a block, which is a register of them or more; tokens of a group, which are worked on together.
constexpr std::int64_t BLOCK_KEYS = 16;
constexpr std::int64_t GROUP = 8;

// Keys and values of the tokens so far, in blocks of slots. The keys of a block lie turned, so that a score
// is a sum along dense rows; those of two blocks side by side, so that one token's scores read memory from
// end to end. A slot that is not filled yet is finite, and counts for nothing.
struct StepCache {
    float* keys;                               // [batch, heads, blocks / 2, width, 2, BLOCK_KEYS]
    float* values;                             // [batch, heads, blocks, BLOCK_KEYS, padded width]
    std::int64_t batch, heads, width, blocks;  // an even number of blocks

    // Whole panels.
    std::int64_t padded_width() const { return (width + PANEL - 1) / PANEL * PANEL; }
};

// Bit l of masks[masks + i]: whether token l of a group sees slot i of the block. Below 0: all see all.
struct SeenBlock {
    std::int64_t number, masks;
};

// The slots of new tokens, and what they see of the cache once those are filled. Group g has the tokens from
// g * GROUP on and sees blocks[group_blocks[g]] to blocks[group_blocks[g + 1]], in ascending order: an even
// number, of which the last may repeat the one before it, seen by none.
struct Step {
    std::int64_t tokens;
    const std::int64_t* slots;
    const SeenBlock* blocks;
    const std::int64_t* group_blocks;
    const std::uint32_t* masks;
    std::int64_t pairs;        // of tokens and blocks, all groups together
    std::int64_t most_blocks;  // of a group
};

// [batch, token, head, width], of any strides but the last.
struct StepTokens {
    const float* data;
    std::int64_t batch_stride, row_stride, head_stride;
};

// softmax(scale * q k^T) v; out: [batch, tokens, heads, width], dense.
struct StepAttention {
    StepCache cache;
    Step step;
    StepTokens q, k, v;
    float scale;
    float* out;
};

void attend_step(const StepAttention& attention, int threads);

// (x - mean) / deviation * weight + bias of rows; without a bias x / root mean square * weight.
struct RowNorm {
    const float* weight;
    const float* bias;
    float eps;
};

// A pre-norm transformer block and what it remembers: x += proj(attention(qkv(norm1(x)))), then
// x += fc2(activation(fc1(norm2(x)))).
struct StepBlock {
    RowNorm norm1, norm2;
    LinearLayer qkv, proj, fc1, fc2;
    Activation activation;
    StepCache cache;
};

// x: [batch, tokens, heads * width], dense.
void step_block(const StepBlock& block, const Step& step, float* x, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                \
    namespace set {                                                                             \
    void packed_linear_panel(const PackedLinear& linear, std::int64_t panel);                   \
    std::int64_t attend_step_workspace(const StepAttention& attention);                         \
    void attend_step_one(const StepAttention& attention, std::int64_t image, std::int64_t head, \
                         float* workspace);                                                     \
    void normalise(const RowNorm& norm, const float* x, std::int64_t width, float* y);          \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
