// Small matrix products for AVX-512 on 32-bit words: a word is one float, or two neighbouring bfloat16.
//
// C[r][j] = sum over k of A[r][k] * B[k][j], where a step k is a word: the products of a bfloat16 pair are
// added in float32 by one instruction. A comes word by word (broadcast), B and C in vectors of 16. Long sums
// are made of partial ones, which keeps their rounding errors small.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/number_types.h"

namespace imagen_fast::avx512_bf16 {

using Word = std::uint32_t;
constexpr int LANES = 16;
constexpr std::int64_t PARTIAL = 128;  // steps of a partial sum

// How many values of a type one word holds, and the multiply-add of words.
template <class T>
struct Words;

template <>
struct Words<float> {
    static constexpr int PER_WORD = 1;
    static inline __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
};

template <>
struct Words<BFloat16> {
    static constexpr int PER_WORD = 2;
    static inline __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    }
};

struct WordMatrix {
    const Word* data;
    std::int64_t row, step;  // strides in words
};

template <class T, int ROWS, int VECTORS>
static inline void gemm_tile(float* c, std::int64_t c_row, WordMatrix a, const Word* b, std::int64_t b_step,
                             std::int64_t steps) {
    for (std::int64_t first = 0; first < steps; first += PARTIAL) {
        __m512 sum[ROWS][VECTORS];
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) sum[r][v] = _mm512_setzero_ps();
        const std::int64_t last = first + PARTIAL < steps ? first + PARTIAL : steps;
        for (std::int64_t k = first; k < last; ++k) {
            __m512i right[VECTORS];
            for (int v = 0; v < VECTORS; ++v) right[v] = _mm512_loadu_si512(b + k * b_step + v * LANES);
            for (int r = 0; r < ROWS; ++r) {
                const __m512i left = _mm512_set1_epi32(static_cast<int>(a.data[r * a.row + k * a.step]));
                for (int v = 0; v < VECTORS; ++v)
                    sum[r][v] = Words<T>::multiply_add(sum[r][v], left, right[v]);
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) {
                float* to = c + r * c_row + v * LANES;
                _mm512_storeu_ps(to, first ? _mm512_add_ps(_mm512_loadu_ps(to), sum[r][v]) : sum[r][v]);
            }
    }
}

// Eight rows by two vectors: sixteen independent sums hide the latency of the multiply-add.
template <class T, int VECTORS>
static inline void gemm_columns(float* c, std::int64_t c_row, WordMatrix a, const Word* b,
                                std::int64_t b_step, std::int64_t rows, std::int64_t steps) {
    std::int64_t r = 0;
    const auto at = [&](std::int64_t row) { return WordMatrix{a.data + row * a.row, a.row, a.step}; };
    for (; r + 8 <= rows; r += 8) gemm_tile<T, 8, VECTORS>(c + r * c_row, c_row, at(r), b, b_step, steps);
    if (r + 4 <= rows) {
        gemm_tile<T, 4, VECTORS>(c + r * c_row, c_row, at(r), b, b_step, steps);
        r += 4;
    }
    for (; r < rows; ++r) gemm_tile<T, 1, VECTORS>(c + r * c_row, c_row, at(r), b, b_step, steps);
}

// `columns` is a multiple of 16.
template <class T>
static inline void gemm(float* c, std::int64_t c_row, WordMatrix a, const Word* b, std::int64_t b_step,
                        std::int64_t rows, std::int64_t columns, std::int64_t steps) {
    std::int64_t j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        gemm_columns<T, 2>(c + j, c_row, a, b + j, b_step, rows, steps);
    if (j < columns) gemm_columns<T, 1>(c + j, c_row, a, b + j, b_step, rows, steps);
}

// Sixteen rows of sixteen words, turned.
static inline void transpose(__m512i row[LANES]) {
    __m512i t[LANES];
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        row[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        row[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        row[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        row[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // Now row[4 i + j] holds, in each quarter q, words 4 i .. 4 i + 3 of column 4 q + j.
    for (int j = 0; j < 4; ++j) {
        const __m512i a = _mm512_shuffle_i32x4(row[j], row[4 + j], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(row[j], row[4 + j], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(row[8 + j], row[12 + j], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(row[8 + j], row[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < LANES; ++i) row[i] = t[i];
}

// 2^x in float32, to one or two units in the last place; x at most 127, and anything below -127 gives 0 or
// nearly.
static inline __m512 exp2(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);  // -0.5 .. 0.5
    // The Taylor series of 2^f to degree 7 is below a unit in the last place there.
    __m512 p = _mm512_set1_ps(1.5252734e-5f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.5403530e-4f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

}  // namespace imagen_fast::avx512_bf16
