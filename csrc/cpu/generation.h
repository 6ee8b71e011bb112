// What a transformer computes a few tokens at a time, while an image is generated: linear layers whose
// weights are laid out once, and attention to the keys and values kept so far. All float32.
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

// y = x weight^T + bias
struct PackedLinear {
    const float* x;       // [rows, in], dense
    const float* weight;  // packed
    const float* bias;    // [out], or null
    std::int64_t rows, in, out;
    float* y;  // [rows, out], dense
};

void packed_linear(const PackedLinear& linear, int threads);

// Keys and values of the slots so far. Keys lie turned, so that a score is a sum along dense rows.
struct StepCache {
    float* keys;    // [batch, heads, width, slots]
    float* values;  // [batch, heads, slots, padded width]
    std::int64_t batch, heads, width, slots;

    // Whole panels; what is read past the last slot is finite, and counts for nothing.
    std::int64_t padded_width() const { return (width + PANEL - 1) / PANEL * PANEL; }
};

// Slots first..last are filled from k and v; the new tokens attend to low..last of them.
struct Step {
    std::int64_t first, last, low;
    const std::uint8_t* mask;  // [last - first, last - low], which each sees; null: all
    float scale;
};

// [batch, token, head, width], of any strides but the last.
struct StepTokens {
    const float* data;
    std::int64_t batch_stride, row_stride, head_stride;
};

// out: [batch, tokens, heads, width], dense. The cache has PANEL slots more than are ever filled.
void attend_step(const StepCache& cache, const Step& step, const StepTokens& q, const StepTokens& k,
                 const StepTokens& v, float* out, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                             \
    namespace set {                                                                                          \
    void packed_linear_panel(const PackedLinear& linear, std::int64_t panel);                                \
    std::int64_t attend_step_workspace(const StepCache& cache, const Step& step);                            \
    void attend_step_one(const StepCache& cache, const Step& step, const StepTokens& q, const StepTokens& k, \
                         const StepTokens& v, float* out, std::int64_t image, std::int64_t head,             \
                         float* workspace);                                                                  \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
