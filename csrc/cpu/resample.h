// Resampling of RGB rows: first along the row, each as soon as it is there, then down the columns. See
// common/resample.h.
#pragma once

#include <cstdint>
#include <vector>

#include "common/resample.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

// Bytes that may be read beyond the end of a row of pixels, and of a row that `resample_row` made.
constexpr std::int64_t ROW_SLACK = 64;

// What the outputs begin .. begin + outputs of an axis are made of, in the order in which they are wanted.
class Taps {
public:
    // `mirrored`: the last comes first.
    void set(const Axis& axis, std::int64_t begin, std::int64_t outputs, bool mirrored);

    std::int64_t outputs() const { return static_cast<std::int64_t>(reach_.size()); }
    // The inputs that any of them is made of; outputs count from the first of these.
    const Reach& all() const { return all_; }
    const Reach& reach(std::int64_t output) const { return reach_[static_cast<std::size_t>(output)]; }
    // In units of 2^-bits, zeros up to `pitch`.
    const std::int16_t* weights(std::int64_t output) const { return weights_.data() + output * pitch_; }
    std::int64_t pitch() const { return pitch_; }
    int bits() const { return bits_; }

private:
    std::vector<Reach> reach_;
    std::vector<std::int16_t> weights_;
    std::vector<double> exact_;
    Reach all_{};
    std::int64_t pitch_ = 0;
    int bits_ = 0;
};

#define IMAGEN_FAST_DECLARE(set)                                                                           \
    namespace set {                                                                                        \
    /* Rows of RGB pixels, the first of them taps.all().first, to rows of RGB outputs. Rows lie so many    \
       bytes apart. */                                                                                     \
    void resample_rows(const Taps& taps, const std::uint8_t* pixels, std::int64_t pixels_pitch,            \
                       std::int64_t rows, std::uint8_t* out, std::int64_t out_pitch);                      \
    /* One output row of `bytes` from the rows from taps.all().first on, which are `pitch` bytes apart. */ \
    void resample_column(const Taps& taps, std::int64_t output, const std::uint8_t* rows,                  \
                         std::int64_t pitch, std::int64_t bytes, std::uint8_t* out);                       \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
