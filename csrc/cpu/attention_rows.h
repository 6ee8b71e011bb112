// How the rows of one image and head come into an attention kernel, and go out again.
//
// A matrix is laid out for the side of a product that it is on: row by row for the left side; for the right
// side turned (a lane a row), or with words across its rows (a word holds one column of neighbouring rows).
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/attention.h"
#include "cpu/word_gemm.h"

namespace imagen_fast::avx512_bf16 {

static inline std::int64_t up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Where the listed rows of one image and head lie.
template <class T>
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

    T* operator[](std::int64_t i) const { return base + (index ? index[i] : i) * stride; }
};

// Rows as they lie: [count][width_words].
template <class T>
static inline void copy_rows(const Rows<T>& rows, std::int64_t width_words, Word* to) {
    for (std::int64_t i = 0; i < rows.count; ++i)
        std::memcpy(to + i * width_words, rows[i], width_words * sizeof(Word));
}

// Rows turned: [width_words][VECTORS * 16], lane i is row first + i; rows past the last are zero.
template <int VECTORS, class T>
static inline void turn_rows(const Rows<T>& rows, std::int64_t first, std::int64_t width_words, Word* to) {
    for (int v = 0; v < VECTORS; ++v)
        for (std::int64_t w = 0; w < width_words; w += LANES) {
            __m512i tile[LANES];
            const __mmask16 mask = mask_of(width_words - w);
            for (int i = 0; i < LANES; ++i) {
                const std::int64_t row = first + v * LANES + i;
                tile[i] = row < rows.count
                              ? _mm512_maskz_loadu_epi32(mask, reinterpret_cast<const Word*>(rows[row]) + w)
                              : _mm512_setzero_si512();
            }
            transpose(tile);
            for (int i = 0; i < std::min<std::int64_t>(LANES, width_words - w); ++i)
                _mm512_storeu_si512(to + ((w + i) * VECTORS + v) * LANES, tile[i]);
        }
}

// Rows with words across them: [n / PER_WORD][width_lanes]; rows past the last are zero.
static inline void word_rows(const Rows<float>& rows, std::int64_t n, std::int64_t width, Word* to) {
    const std::int64_t width_lanes = up(width, LANES);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < width_lanes; j += LANES)
            _mm512_storeu_ps(reinterpret_cast<float*>(to) + i * width_lanes + j,
                             i < rows.count ? _mm512_maskz_loadu_ps(mask_of(width - j), rows[i] + j)
                                            : _mm512_setzero_ps());
}

static inline void word_rows(const Rows<BFloat16>& rows, std::int64_t n, std::int64_t width, Word* to) {
    const std::int64_t width_lanes = up(width, LANES);
    for (std::int64_t i = 0; i < n; i += 2)
        for (std::int64_t j = 0; j < width_lanes; j += LANES) {
            const __mmask16 mask = mask_of(width - j);
            const auto load = [&](std::int64_t row) {
                return row < rows.count ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rows[row] + j))
                                        : _mm512_setzero_si512();
            };
            const __m512i pair = _mm512_or_si512(load(i), _mm512_slli_epi32(load(i + 1), 16));
            _mm512_storeu_si512(to + i / 2 * width_lanes + j, pair);
        }
}

// One row of VECTORS * 16 columns, as the left side of a product over its columns.
static inline void store_row_words(Word* to, const __m512 (&row)[1], Words<float>) {
    _mm512_storeu_ps(to, row[0]);
}
static inline void store_row_words(Word* to, const __m512 (&row)[2], Words<float>) {
    _mm512_storeu_ps(to, row[0]);
    _mm512_storeu_ps(to + LANES, row[1]);
}
static inline void store_row_words(Word* to, const __m512 (&row)[1], Words<BFloat16>) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(row[0]));
}
static inline void store_row_words(Word* to, const __m512 (&row)[2], Words<BFloat16>) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(row[1], row[0]));
}

// Two neighbouring rows, as the right side of a product over rows: one row of words, or for float two.
static inline void store_pair_words(Word* to, std::int64_t step, __m512 even, __m512 odd, Words<float>) {
    _mm512_storeu_ps(to, even);
    _mm512_storeu_ps(to + step, odd);
}
static inline void store_pair_words(Word* to, std::int64_t, __m512 even, __m512 odd, Words<BFloat16>) {
    alignas(64) static constexpr std::uint16_t interleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                 21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(interleave), apart));
}

static inline void store(float* to, __m512 value, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, value); }
static inline void store(BFloat16* to, __m512 value, __mmask16 mask) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// [width][VECTORS * 16] turned back into rows from `first` on, each lane times its factor.
template <int VECTORS, class T>
static inline void write_turned(const float* turned, const __m512 (&factor)[VECTORS], const Rows<T>& rows,
                                std::int64_t first, std::int64_t width) {
    for (int v = 0; v < VECTORS; ++v)
        for (std::int64_t w = 0; w < width; w += LANES) {
            __m512i tile[LANES];
            for (int i = 0; i < LANES; ++i) {
                const float* from = turned + ((w + i) * VECTORS + v) * LANES;
                tile[i] = w + i < width ? _mm512_castps_si512(_mm512_mul_ps(_mm512_loadu_ps(from), factor[v]))
                                        : _mm512_setzero_si512();
            }
            transpose(tile);
            const std::int64_t many = std::min<std::int64_t>(LANES, rows.count - first - v * LANES);
            for (std::int64_t i = 0; i < many; ++i)
                store(rows[first + v * LANES + i] + w, _mm512_castsi512_ps(tile[i]), mask_of(width - w));
        }
}

// [count][from_row] times a factor into rows.
template <class T>
static inline void write_rows(const float* from, std::int64_t from_row, float factor, const Rows<T>& rows,
                              std::int64_t width) {
    const __m512 scale = _mm512_set1_ps(factor);
    for (std::int64_t i = 0; i < rows.count; ++i)
        for (std::int64_t j = 0; j < width; j += LANES)
            store(rows[i] + j, _mm512_mul_ps(_mm512_loadu_ps(from + i * from_row + j), scale),
                  mask_of(width - j));
}

}  // namespace imagen_fast::avx512_bf16
