// How the rows of one image and head come into an attention kernel, and go out again.
//
// A matrix is laid out for the side of a product that it is on: row by row for the left side; for the right
// side turned (a lane a row), or with words across its rows (a word holds one column of neighbouring rows).
// `W` says what a word is: rows of pairs must be bfloat16, rows of float words may be either.
#pragma once

#include "cpu/attention.h"
#include "cpu/word_gemm.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

static inline std::int64_t up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Where the listed rows of one image and head lie. A list with GAPS has places without a row: those are zeros
// where they are read, and are not written.
template <class T, bool GAPS>
struct Rows {
    T* base;
    std::int64_t stride, count;
    const std::int32_t* index;

    Rows(const TokenView& view, const RowList& list, std::int64_t image, std::int64_t head) {
        const std::int64_t start = list.spans ? list.spans[2 * image] : 0;
        count = list.spans ? std::min<std::int64_t>(list.spans[2 * image + 1], list.longest) : list.longest;
        index = list.index ? list.index + image * list.index_stride : nullptr;
        stride = view.row_stride;
        base =
            static_cast<T*>(view.data) + image * view.batch_stride + start * stride + head * view.head_stride;
    }

    bool has(std::int64_t i) const { return i < count && (!GAPS || index[i] >= 0); }
    T* operator[](std::int64_t i) const { return base + (index ? index[i] : i) * stride; }
};

// LANES words of a row from word w on; words past the row's last are zero.
template <class T>
static inline Floats row_words(const T* row, std::int64_t w, std::int64_t width_words, FloatWords) {
    return load(row + w, width_words - w);
}

// Rows as they lie: [count][width_words].
template <class T, bool GAPS>
static inline void copy_rows(const Rows<T, GAPS>& rows, std::int64_t width_words, Word* to, FloatWords) {
    for (std::int64_t i = 0; i < rows.count; ++i)
        for (std::int64_t w = 0; w < width_words; w += LANES)
            store(reinterpret_cast<float*>(to + i * width_words + w),
                  rows.has(i) ? load(rows[i] + w, width_words - w) : Floats{}, width_words - w);
}

// Rows with words across them: [n / PER_WORD][width_lanes]; rows past the last are zero.
template <class T, bool GAPS>
static inline void word_rows(const Rows<T, GAPS>& rows, std::int64_t n, std::int64_t width, Word* to,
                             FloatWords) {
    const std::int64_t width_lanes = up(width, LANES);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < width_lanes; j += LANES)
            store(reinterpret_cast<float*>(to) + i * width_lanes + j,
                  rows.has(i) ? load(rows[i] + j, width - j) : Floats{});
}

// One row of VECTORS * LANES columns, as the left side of a product over its columns.
template <int VECTORS>
static inline void store_row_words(Word* to, const Floats (&row)[VECTORS], FloatWords) {
    for (int v = 0; v < VECTORS; ++v) store(reinterpret_cast<float*>(to) + v * LANES, row[v]);
}

// Two neighbouring rows, as the right side of a product over rows: two rows of words, or one of pairs.
static inline void store_pair_words(Word* to, std::int64_t step, Floats even, Floats odd, FloatWords) {
    store(reinterpret_cast<float*>(to), even);
    store(reinterpret_cast<float*>(to + step), odd);
}

#if defined(__AVX512BF16__)
static inline Floats row_words(const BFloat16* row, std::int64_t w, std::int64_t width_words, BFloat16Pairs) {
    const float* words = reinterpret_cast<const float*>(row);
    return load(words + w, width_words - w);
}

template <bool GAPS>
static inline void copy_rows(const Rows<BFloat16, GAPS>& rows, std::int64_t width_words, Word* to,
                             BFloat16Pairs) {
    const std::size_t bytes = static_cast<std::size_t>(width_words) * sizeof(Word);
    for (std::int64_t i = 0; i < rows.count; ++i)
        if (rows.has(i))
            std::memcpy(to + i * width_words, rows[i], bytes);
        else
            std::memset(to + i * width_words, 0, bytes);
}

template <bool GAPS>
static inline void word_rows(const Rows<BFloat16, GAPS>& rows, std::int64_t n, std::int64_t width, Word* to,
                             BFloat16Pairs) {
    const std::int64_t width_lanes = up(width, LANES);
    for (std::int64_t i = 0; i < n; i += 2)
        for (std::int64_t j = 0; j < width_lanes; j += LANES) {
            const auto half = [&](std::int64_t row) {
                return rows.has(row) ? (Bits)load(rows[row] + j, width - j) : Bits{};
            };
            const Bits pair = (half(i) >> 16) | half(i + 1);
            std::memcpy(to + i / 2 * width_lanes + j, &pair, sizeof pair);
        }
}

static inline void store_row_words(Word* to, const Floats (&row)[1], BFloat16Pairs) {
    store(reinterpret_cast<BFloat16*>(to), row[0]);
}
static inline void store_row_words(Word* to, const Floats (&row)[2], BFloat16Pairs) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)row[1], (__m512)row[0]));
}

static inline void store_pair_words(Word* to, std::int64_t, Floats even, Floats odd, BFloat16Pairs) {
    alignas(64) static constexpr std::uint16_t interleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                 21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(interleave), apart));
}
#endif

// Rows turned: [width_words][VECTORS * LANES], lane i is row first + i; rows past the last are zero.
template <class W, int VECTORS, class T, bool GAPS>
static inline void turn_rows(const Rows<T, GAPS>& rows, std::int64_t first, std::int64_t width_words,
                             Word* to) {
    for (int v = 0; v < VECTORS; ++v)
        for (std::int64_t w = 0; w < width_words; w += LANES) {
            Floats tile[LANES];
            for (int i = 0; i < LANES; ++i) {
                const std::int64_t row = first + v * LANES + i;
                tile[i] = rows.has(row) ? row_words(rows[row], w, width_words, W{}) : Floats{};
            }
            transpose(tile);
            for (int i = 0; i < std::min<std::int64_t>(LANES, width_words - w); ++i)
                store(reinterpret_cast<float*>(to + ((w + i) * VECTORS + v) * LANES), tile[i]);
        }
}

// [width][VECTORS * LANES] turned back into rows from `first` on, each lane times its factor.
template <int VECTORS, class T, bool GAPS>
static inline void write_turned(const float* turned, const Floats (&factor)[VECTORS],
                                const Rows<T, GAPS>& rows, std::int64_t first, std::int64_t width) {
    for (int v = 0; v < VECTORS; ++v)
        for (std::int64_t w = 0; w < width; w += LANES) {
            Floats tile[LANES];
            for (int i = 0; i < LANES; ++i)
                tile[i] =
                    w + i < width ? load(turned + ((w + i) * VECTORS + v) * LANES) * factor[v] : Floats{};
            transpose(tile);
            for (std::int64_t i = 0; i < LANES; ++i) {
                const std::int64_t row = first + v * LANES + i;
                if (rows.has(row)) store(rows[row] + w, tile[i], width - w);
            }
        }
}

// [count][from_row] times a factor into rows.
template <class T, bool GAPS>
static inline void write_rows(const float* from, std::int64_t from_row, float factor,
                              const Rows<T, GAPS>& rows, std::int64_t width) {
    for (std::int64_t i = 0; i < rows.count; ++i)
        for (std::int64_t j = 0; j < width && rows.has(i); j += LANES)
            store(rows[i] + j, load(from + i * from_row + j) * factor, width - j);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
