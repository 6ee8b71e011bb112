// Small matrix products for AVX-512 on 32-bit words: a word is one float, or two neighbouring bfloat16.
//
// C[r][j] = sum over k of A[r][k] * B[k][j], where a step k is a word: the products of a bfloat16 pair are
// added in float32 by one instruction. A comes word by word (broadcast), B and C in vectors of 16.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "common/number_types.h"
#include "cpu/lanes.h"

namespace imagen_fast::avx512_bf16 {

using Word = std::uint32_t;

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

    WordMatrix from(std::int64_t r, std::int64_t k = 0) const {
        return {data + r * row + k * step, row, step};
    }
};

// A tile of C, held in registers. Eight rows by two vectors: sixteen independent sums hide the latency of
// the multiply-add.
constexpr int TILE_ROWS = 8;

template <int ROWS, int VECTORS>
struct Tile {
    __m512 sum[ROWS][VECTORS];
};

template <class T, int ROWS, int VECTORS>
static inline Tile<ROWS, VECTORS> multiply(WordMatrix a, const Word* b, std::int64_t b_step,
                                           std::int64_t steps) {
    Tile<ROWS, VECTORS> c;
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) c.sum[r][v] = _mm512_setzero_ps();
    for (std::int64_t k = 0; k < steps; ++k) {
        __m512i right[VECTORS];
        for (int v = 0; v < VECTORS; ++v) right[v] = _mm512_loadu_si512(b + k * b_step + v * LANES);
        for (int r = 0; r < ROWS; ++r) {
            const __m512i left = _mm512_set1_epi32(static_cast<int>(a.data[r * a.row + k * a.step]));
            for (int v = 0; v < VECTORS; ++v)
                c.sum[r][v] = Words<T>::multiply_add(c.sum[r][v], left, right[v]);
        }
    }
    return c;
}

template <int N>
using Number = std::integral_constant<int, N>;

// Calls work(Number<ROWS>, first row) for tiles of eight rows and one of those that are left.
template <class Work>
static inline void in_tiles(std::int64_t rows, Work work) {
    std::int64_t r = 0;
    for (; r + TILE_ROWS <= rows; r += TILE_ROWS) work(Number<TILE_ROWS>{}, r);
    switch (rows - r) {
        case 1:
            return work(Number<1>{}, r);
        case 2:
            return work(Number<2>{}, r);
        case 3:
            return work(Number<3>{}, r);
        case 4:
            return work(Number<4>{}, r);
        case 5:
            return work(Number<5>{}, r);
        case 6:
            return work(Number<6>{}, r);
        case 7:
            return work(Number<7>{}, r);
    }
}

// Long sums are made of partial ones, which keeps their rounding errors small.
constexpr std::int64_t PARTIAL = 128;

template <class T, int VECTORS>
static inline void gemm_columns(float* c, std::int64_t c_row, WordMatrix a, const Word* b,
                                std::int64_t b_step, std::int64_t rows, std::int64_t steps) {
    in_tiles(rows, [&](auto many, std::int64_t r) {
        for (std::int64_t k = 0; k < steps; k += PARTIAL) {
            const auto part = multiply<T, many, VECTORS>(a.from(r, k), b + k * b_step, b_step,
                                                         std::min(PARTIAL, steps - k));
            for (int i = 0; i < many; ++i)
                for (int v = 0; v < VECTORS; ++v) {
                    float* to = c + (r + i) * c_row + v * LANES;
                    const __m512 sum = part.sum[i][v];
                    _mm512_storeu_ps(to, k ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
                }
        }
    });
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

}  // namespace imagen_fast::avx512_bf16
