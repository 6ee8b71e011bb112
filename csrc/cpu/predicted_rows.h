// How rows come into a likelihood kernel, through its three products, and how their gradients go out again.
//
// A block of the rows that count is projected some rows at a time; the likelihood turns what comes out into
// gradients for it, and keeps these twice: row by row, for the product with the weight, and with words across
// rows, for the product with the hidden vectors. Right sides of products lie in panels of two registers, one
// panel after another, so that no stride is a multiple of a cache's.
#pragma once

#include "cpu/attention_rows.h"
#include "cpu/pixel_likelihood.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

constexpr std::int64_t PANEL = 2 * LANES;  // columns
constexpr std::int64_t FEW = 48;           // rows that are projected at a time: whole tiles, whole registers
constexpr std::int64_t BLOCK = 4 * FEW;    // rows whose part of the weight's gradient is added at once

template <class T>
struct WordsOf {
    using type = FloatWords;
};
#if defined(__AVX512BF16__)
template <>
struct WordsOf<BFloat16> {
    using type = BFloat16Pairs;
};
#endif

// The sizes of the matrices, in words along a row or in lanes across.
template <class W>
struct Widths {
    std::int64_t width, outputs, width_words, output_words, width_lanes, output_lanes, logits_row;

    explicit Widths(const PredictedRows& rows)
        : width(rows.width),
          outputs(rows.outputs),
          width_words(up(width, W::PER_WORD) / W::PER_WORD),
          output_words(up(outputs, W::PER_WORD) / W::PER_WORD),
          width_lanes(up(width, PANEL)),
          output_lanes(up(outputs, PANEL)),
          logits_row(output_lanes + LANES) {}  // an odd number of registers: rows do not share cache sets
};

// The packed weight: turned for z = hidden weight^T, across for d_hidden = d_z weight, and the bias.
template <class W>
struct PackedWeight {
    Word* turned;  // [panels of outputs][width_words][PANEL]
    Word* across;  // [panels of the width][output_words][PANEL]
    float* bias;   // [output_lanes]

    PackedWeight(const Widths<W>& w, float* packed)
        : turned(reinterpret_cast<Word*>(packed)),
          across(turned + w.output_lanes * w.width_words),
          bias(reinterpret_cast<float*>(across + w.width_lanes * w.output_words)) {}
};

// One row as it lies, its last word filled up.
template <class T>
static inline void copy_row(const T* row, std::int64_t width, Word* to, FloatWords) {
    for (std::int64_t j = 0; j < width; j += LANES)
        store(reinterpret_cast<float*>(to) + j, load(row + j, width - j), width - j);
}

// Neighbouring rows with words across them, into panels of which one is `panel` words long.
template <class T>
static inline void put_across(const T* even, const T* odd, std::int64_t width, Word* to, std::int64_t panel,
                              FloatWords) {
    for (std::int64_t j = 0; j < up(width, PANEL); j += LANES) {
        float* here = reinterpret_cast<float*>(to + j / PANEL * panel + j % PANEL);
        store(here, load(even + j, width - j));
        if (odd) store(here + PANEL, load(odd + j, width - j));
    }
}

// The gradients of two neighbouring rows, in the one layout that serves both products.
static inline void store_gradients(Word*, std::int64_t, Word* across, std::int64_t across_row, Floats even,
                                   Floats odd, FloatWords) {
    store(reinterpret_cast<float*>(across), even);
    store(reinterpret_cast<float*>(across + across_row), odd);
}

#if defined(__AVX512BF16__)
static inline void copy_row(const BFloat16* row, std::int64_t width, Word* to, BFloat16Pairs) {
    to[(width - 1) / 2] = 0;
    std::memcpy(to, row, static_cast<std::size_t>(width) * sizeof(BFloat16));
}

static inline void put_across(const BFloat16* even, const BFloat16* odd, std::int64_t width, Word* to,
                              std::int64_t panel, BFloat16Pairs) {
    for (std::int64_t j = 0; j < up(width, PANEL); j += LANES) {
        const Bits low = (Bits)load(even + j, width - j) >> 16;
        const Bits pair = odd ? low | (Bits)load(odd + j, width - j) : low;
        std::memcpy(to + j / PANEL * panel + j % PANEL, &pair, sizeof pair);
    }
}

static inline void store_gradients(Word* along, std::int64_t along_row, Word* across, std::int64_t,
                                   Floats even, Floats odd, BFloat16Pairs) {
    store(reinterpret_cast<BFloat16*>(along), even);
    store(reinterpret_cast<BFloat16*>(along + along_row), odd);
    store_pair_words(across, 0, even, odd, BFloat16Pairs{});
}
#endif

// [rows][words] turned into panels [words][PANEL] of PANEL rows each; rows past the last are zero.
static inline void turn_into_panels(const Word* from, std::int64_t rows, std::int64_t words, Word* to) {
    for (std::int64_t first = 0; first < up(rows, PANEL); first += LANES) {
        Word* panel = to + first / PANEL * words * PANEL + first % PANEL;
        for (std::int64_t w = 0; w < words; w += LANES) {
            Floats tile[LANES];
            for (std::int64_t i = 0; i < LANES; ++i) {
                const Word* row = from + (first + i) * words + w;
                tile[i] = first + i < rows ? load(reinterpret_cast<const float*>(row), words - w) : Floats{};
            }
            transpose(tile);
            for (std::int64_t i = 0; i < std::min<std::int64_t>(LANES, words - w); ++i)
                store(reinterpret_cast<float*>(panel + (w + i) * PANEL), tile[i]);
        }
    }
}

// Two registers of columns of A B, added to what `start` holds (the same for all rows where start_row is 0).
template <class W>
static inline void panel_product(WordMatrix a, const Word* panel, std::int64_t rows, std::int64_t steps,
                                 const float* start, std::int64_t start_row, float* c, std::int64_t c_row) {
    for (std::int64_t k = 0; k < steps; k += PARTIAL) {
        in_tiles(rows, [&](auto many, std::int64_t r) {
            const auto part =
                multiply<W, many, 2>(a.from(r, k), panel + k * PANEL, PANEL, std::min(PARTIAL, steps - k));
            for (int i = 0; i < many; ++i)
                for (int v = 0; v < 2; ++v)
                    store(c + (r + i) * c_row + v * LANES,
                          load(start + (r + i) * start_row + v * LANES) + part.sum[i][v]);
        });
        start = c;
        start_row = c_row;
    }
}

// The rows of a share that count, in order; zeros for the gradients of the others.
template <class T>
struct Reader {
    const PredictedRows& rows;
    const Likelihoods& wanted;
    Share& share;
    std::int64_t next;

    std::int64_t target(std::int64_t i) const {
        switch (rows.target_type) {
            case Integer::uint8:
                return static_cast<const std::uint8_t*>(rows.target)[i];
            case Integer::int8:
                return static_cast<const std::int8_t*>(rows.target)[i];
            case Integer::int16:
                return static_cast<const std::int16_t*>(rows.target)[i];
            case Integer::int32:
                return static_cast<const std::int32_t*>(rows.target)[i];
            default:
                return static_cast<const std::int64_t*>(rows.target)[i];
        }
    }

    const T* hidden(std::int64_t i) const {
        const std::int64_t group = i / rows.group_rows, row = i % rows.group_rows;
        return static_cast<const T*>(rows.hidden) + group * rows.group_stride + row * rows.row_stride;
    }

    T* d_hidden(std::int64_t i) const { return static_cast<T*>(wanted.d_hidden) + i * rows.width; }

    // At most `most` row numbers and their targets; returns how many.
    std::int64_t take(std::int64_t most, std::int64_t* row, std::int32_t* level) {
        std::int64_t n = 0;
        for (; next < share.end && n < most; ++next) {
            const std::int64_t value = target(next);
            bool counts = (!rows.keep || rows.keep[next]) && value != rows.ignore_index;
            if (counts && (value < 0 || value >= rows.levels)) {
                share.bad_target = true;
                share.bad = value;
                counts = false;
            }
            if (counts) {
                row[n] = next;
                level[n++] = static_cast<std::int32_t>(value);
                continue;
            }
            if (wanted.losses) wanted.losses[next] = 0;
            if (wanted.d_hidden)
                std::memset(d_hidden(next), 0, static_cast<std::size_t>(rows.width) * sizeof(T));
        }
        return n;
    }
};

// One register of rows on their way through a likelihood: z of `many` rows from `z` on, which may be written
// over.
struct RowGroup {
    float* z;
    std::int64_t z_row;
    int many;
    const std::int64_t* row;
    const std::int32_t* target;
};

// Where the gradients of a register of rows go: the first row's words along it and across rows, and the sums
// for the bias (null without one).
template <class W>
struct GradientGroup {
    Word* along;
    std::int64_t along_row;
    Word* across;
    std::int64_t across_row;
    float* bias;

    // Of rows r and r + 1, from column j on.
    void put(int r, std::int64_t j, Floats even, Floats odd) const {
        store_gradients(along + r * along_row + j / W::PER_WORD, along_row,
                        across + r / W::PER_WORD * across_row + j, across_row, even, odd, W{});
        if (bias) store(bias + j, load(bias + j) + even + odd);
    }

    // Of one row and column, which has been put already.
    void replace(int r, std::int64_t j, float old, float value) const {
        if constexpr (W::PER_WORD == 1) {
            reinterpret_cast<float*>(across + r * across_row)[j] = value;
        } else {
            imagen_fast::store(value, reinterpret_cast<BFloat16*>(along + r * along_row) + j);
            imagen_fast::store(value, reinterpret_cast<BFloat16*>(across + r / 2 * across_row + j) + r % 2);
        }
        if (bias) bias[j] += value - old;
    }
};

// The share's rows through projection, likelihood and gradients. `likelihood(rows, gradients)` takes a
// RowGroup and a GradientGroup or null, and returns the sum of the losses.
template <class T, class Likelihood>
static inline void through_share(const PredictedRows& p, const Likelihoods& wanted, const float* packed,
                                 float* memory, Share& share, Likelihood likelihood) {
    using W = typename WordsOf<T>::type;
    const Widths<W> w(p);
    const PackedWeight<W> weight(w, const_cast<float*>(packed));
    const auto words = [&](std::int64_t n) {
        float* here = memory;
        memory += up(n, LANES);
        return reinterpret_cast<Word*>(here);
    };
    const std::int64_t across_row = w.logits_row, panel = BLOCK / W::PER_WORD * PANEL;
    const std::int64_t along_row = W::PER_WORD == 1 ? across_row : up(w.output_words, LANES) + LANES;
    Word* few = words(FEW * w.width_words);
    float* z = reinterpret_cast<float*>(words(FEW * w.logits_row));
    Word* across = words(BLOCK / W::PER_WORD * across_row);
    Word* along = W::PER_WORD == 1 ? across : words(BLOCK * along_row);
    Word* hidden_across = words(w.width_lanes / PANEL * panel);
    float* d_hidden = reinterpret_cast<float*>(words(BLOCK * PANEL));
    const float zeros[PANEL] = {};
    float* d_weight = share.d_weight;
    // A sum over few rows, which then joins the share's: the bias has as many terms as there are rows, all of
    // one sign where its level is likely.
    float* few_bias = share.d_bias ? reinterpret_cast<float*>(words(w.output_lanes)) : nullptr;
    if (d_weight) std::fill_n(d_weight, w.outputs * w.width_lanes, 0.0f);

    Reader<T> reader{p, wanted, share, share.first};
    std::int64_t row[BLOCK];
    std::int32_t target[BLOCK];
    while (const std::int64_t n = reader.take(BLOCK, row, target)) {
        for (std::int64_t s = 0; s < n; s += FEW) {
            const std::int64_t count = std::min(FEW, n - s);
            if (few_bias) std::fill_n(few_bias, w.output_lanes, 0.0f);
            for (std::int64_t i = 0; i < count; ++i)
                copy_row(reader.hidden(row[s + i]), w.width, few + i * w.width_words, W{});
            for (std::int64_t j = 0; j < w.output_lanes; j += PANEL)
                panel_product<W>({few, w.width_words, 1}, weight.turned + j * w.width_words, count,
                                 w.width_words, weight.bias + j, 0, z + j, w.logits_row);
            for (std::int64_t i = 0; i < count; i += LANES) {
                const RowGroup group{z + i * w.logits_row, w.logits_row,
                                     static_cast<int>(std::min<std::int64_t>(LANES, count - i)), row + s + i,
                                     target + s + i};
                const GradientGroup<W> gradients{along + (s + i) * along_row, along_row,
                                                 across + (s + i) / W::PER_WORD * across_row, across_row,
                                                 few_bias};
                share.loss += likelihood(group, wanted.d_hidden ? &gradients : nullptr);
            }
            if (!wanted.d_hidden) continue;
            for (std::int64_t j = 0; few_bias && j < w.outputs; ++j)
                share.d_bias[j] += static_cast<double>(few_bias[j]);
            for (std::int64_t i = s; i < s + count; i += 2)
                put_across(reader.hidden(row[i]), i + 1 < n ? reader.hidden(row[i + 1]) : nullptr, w.width,
                           hidden_across + i / W::PER_WORD * PANEL, panel, W{});
        }
        if (!wanted.d_hidden) continue;
        for (std::int64_t j = 0; j < w.width_lanes; j += PANEL) {
            panel_product<W>({along, along_row, 1}, weight.across + j * w.output_words, n, w.output_words,
                             zeros, 0, d_hidden, PANEL);
            for (std::int64_t i = 0; i < n; ++i)
                for (std::int64_t l = 0; l < PANEL; l += LANES)
                    store(reader.d_hidden(row[i]) + j + l, load(d_hidden + i * PANEL + l) * wanted.factor,
                          w.width - j - l);
            panel_product<W>({across, 1, across_row}, hidden_across + j / PANEL * panel, w.outputs,
                             up(n, W::PER_WORD) / W::PER_WORD, d_weight + j, w.width_lanes, d_weight + j,
                             w.width_lanes);
        }
    }
}

// A register a row, turned: lane r of the result is the sum (or what `both` makes) of register r's lanes.
template <class Both>
static inline Floats across_lanes(Floats (&row)[LANES], Both both) {
    transpose(row);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) row[i] = both(row[i], row[i + half]);
    return row[0];
}

// The sum of the first `many` lanes, and the lanes themselves to the losses that are asked for.
static inline double give_losses(const Likelihoods& wanted, const RowGroup& group, Floats loss) {
    float lanes[LANES];
    store(lanes, loss);
    double sum = 0;
    for (int r = 0; r < group.many; ++r) {
        sum += lanes[r];
        if (wanted.losses) wanted.losses[group.row[r]] = lanes[r];
    }
    return sum;
}

// The incoming gradients of the rows' losses.
static inline Floats incoming(const Likelihoods& wanted, const RowGroup& group) {
    if (!wanted.d_losses) return all(1.0f);
    float lanes[LANES] = {};
    for (int r = 0; r < group.many; ++r) lanes[r] = wanted.d_losses[group.row[r]];
    return load(lanes);
}

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
