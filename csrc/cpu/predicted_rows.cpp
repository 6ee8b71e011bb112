// What the likelihood kernels have in common and need once a call. Compiled once per instruction set; see
// instruction_set.h.
#include "cpu/predicted_rows.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

template <class T>
void pack(const PredictedRows& p, float* packed) {
    using W = typename WordsOf<T>::type;
    const Widths<W> w(p);
    const PackedWeight<W> to(w, packed);
    const auto row = [&](std::int64_t v) { return static_cast<const T*>(p.weight) + v * w.width; };
    // As they lie, in the place of `across`, which is made afterwards and is no smaller.
    Word* along = to.across;
    for (std::int64_t v = 0; v < w.outputs; ++v) copy_row(row(v), w.width, along + v * w.width_words, W{});
    turn_into_panels(along, w.outputs, w.width_words, to.turned);
    for (std::int64_t v = 0; v < w.outputs; v += 2)
        put_across(row(v), v + 1 < w.outputs ? row(v + 1) : nullptr, w.width,
                   to.across + v / W::PER_WORD * PANEL, w.output_words * PANEL, W{});
    // Levels that do not exist get no share of a softmax.
    std::fill_n(to.bias, w.output_lanes, -1e30f);
    for (std::int64_t v = 0; v < w.outputs; ++v)
        to.bias[v] = p.bias ? to_float(static_cast<const T*>(p.bias)[v]) : 0.0f;
}

}  // namespace

// Sizes for float words, which are the larger ones, and a register's for the rounding of each part.

std::int64_t packed_weight_size(const PredictedRows& p) {
    const Widths<FloatWords> w(p);
    return w.output_lanes * w.width_words + w.width_lanes * (w.output_words + 1) + w.output_lanes;
}

void pack_weight(const PredictedRows& p, float* packed) {
    if (p.dtype == DType::float32) return pack<float>(p, packed);
    pack<BFloat16>(p, packed);
}

std::int64_t share_workspace(const PredictedRows& p) {
    const Widths<FloatWords> w(p);
    return FEW * (w.width_words + w.logits_row) + 2 * BLOCK * (w.logits_row + LANES) +
           BLOCK * (w.width_lanes + PANEL) + w.output_lanes * (2 * LANES + 1) + 7 * LANES;
}

std::int64_t share_gradient_row(const PredictedRows& p) { return Widths<FloatWords>(p).width_lanes; }

std::int64_t share_gradient_size(const PredictedRows& p) {
    const Widths<FloatWords> w(p);
    return w.outputs * w.width_lanes;
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
