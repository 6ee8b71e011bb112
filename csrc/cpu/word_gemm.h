// Small matrix products on 32-bit words: a word is one float, or two neighbouring bfloat16.
//
// C[r][j] = sum over k of A[r][k] * B[k][j], where a step k is a word: the products of a bfloat16 pair are
// added in float32 by one instruction, on processors that have it. A comes word by word (broadcast), B and C
// in registers of LANES words. Tensors in bfloat16 take float words elsewhere.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

using Word = std::uint32_t;

// How many values one word holds, and the multiply-add of words.
struct FloatWords {
    static constexpr int PER_WORD = 1;
    static inline Floats multiply_add(Floats sum, Bits a, Bits b) { return sum + (Floats)a * (Floats)b; }
};

#if defined(__AVX512BF16__)
struct BFloat16Pairs {
    static constexpr int PER_WORD = 2;
    static inline Floats multiply_add(Floats sum, Bits a, Bits b) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
};
#endif

struct WordMatrix {
    const Word* data;
    std::int64_t row, step;  // strides in words

    WordMatrix from(std::int64_t r, std::int64_t k = 0) const {
        return {data + r * row + k * step, row, step};
    }
};

// A tile of C, held in registers. Eight rows by two registers, or six where there are but sixteen registers:
// so many independent sums hide the latency of the multiply-add.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 6;
#endif

template <int ROWS, int VECTORS>
struct Tile {
    Floats sum[ROWS][VECTORS];
};

// The registers of B lie side by side, or so many words from one to the next.
template <class W, int ROWS, int VECTORS>
static inline Tile<ROWS, VECTORS> multiply_add(Tile<ROWS, VECTORS> c, WordMatrix a, const Word* b,
                                               std::int64_t b_step, std::int64_t steps,
                                               std::int64_t b_apart = LANES) {
    for (std::int64_t k = 0; k < steps; ++k) {
        Bits right[VECTORS];
        for (int v = 0; v < VECTORS; ++v) right[v] = read<Bits>(b + k * b_step + v * b_apart);
        for (int r = 0; r < ROWS; ++r) {
            const Bits left = Bits{} + a.data[r * a.row + k * a.step];
            for (int v = 0; v < VECTORS; ++v) c.sum[r][v] = W::multiply_add(c.sum[r][v], left, right[v]);
        }
    }
    return c;
}

template <class W, int ROWS, int VECTORS>
static inline Tile<ROWS, VECTORS> multiply(WordMatrix a, const Word* b, std::int64_t b_step,
                                           std::int64_t steps) {
    return multiply_add<W>(Tile<ROWS, VECTORS>{}, a, b, b_step, steps);
}

// Neighbours in memory.
template <class T>
struct Range {
    const T* first;
    const T* last;

    const T* begin() const { return first; }
    const T* end() const { return last; }
};

template <int N>
using Number = std::integral_constant<int, N>;

// Calls work(Number<ROWS>, first row) for whole tiles, and once for the rows that are left.
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
// In `gemm_tile` shorter ones of float words cost next to nothing, and halve the errors of attention's
// gradients in float32.
template <class W>
constexpr std::int64_t PARTIAL_OF = W::PER_WORD == 1 ? PARTIAL / 4 : PARTIAL;

// One tile of C, over so many steps.
template <class W, int ROWS, int VECTORS>
static inline void gemm_tile(float* c, std::int64_t c_row, WordMatrix a, const Word* b, std::int64_t b_step,
                             std::int64_t steps, bool add) {
    for (std::int64_t k = 0; k < steps; k += PARTIAL_OF<W>) {
        const auto part = multiply<W, ROWS, VECTORS>(a.from(0, k), b + k * b_step, b_step,
                                                     std::min(PARTIAL_OF<W>, steps - k));
        for (int i = 0; i < ROWS; ++i)
            for (int v = 0; v < VECTORS; ++v) {
                float* to = c + i * c_row + v * LANES;
                store(to, add || k ? load(to) + part.sum[i][v] : part.sum[i][v]);
            }
    }
}

// One tile of C, over run.count values from run.from on along A, and from run.at on along B, for each of the
// runs. Not inlined: with more around it the compiler runs out of registers.
template <class W, int ROWS, int VECTORS, class Run>
__attribute__((noinline)) static void gemm_tile(float* c, std::int64_t c_row, WordMatrix a, const Word* b,
                                                std::int64_t b_step, Range<Run> runs, bool add) {
    const Run* run = runs.first;
    std::int64_t done = 0;  // of that run
    while (run != runs.last) {
        Tile<ROWS, VECTORS> part{};
        for (std::int64_t room = PARTIAL_OF<W>; room && run != runs.last;) {
            const std::int64_t left = (run->count + W::PER_WORD - 1) / W::PER_WORD - done;
            const std::int64_t steps = std::min(room, left);
            part = multiply_add<W>(part, a.from(0, run->from / W::PER_WORD + done),
                                   b + (run->at / W::PER_WORD + done) * b_step, b_step, steps);
            room -= steps;
            done += steps;
            if (steps == left) {
                ++run;
                done = 0;
            }
        }
        for (int i = 0; i < ROWS; ++i)
            for (int v = 0; v < VECTORS; ++v) {
                float* to = c + i * c_row + v * LANES;
                store(to, add ? load(to) + part.sum[i][v] : part.sum[i][v]);
            }
        add = true;
    }
}

template <class W, int VECTORS, class Steps>
static inline void gemm_columns(float* c, std::int64_t c_row, WordMatrix a, const Word* b,
                                std::int64_t b_step, std::int64_t rows, Steps steps, bool add) {
    in_tiles(rows, [&](auto many, std::int64_t r) {
        gemm_tile<W, many, VECTORS>(c + r * c_row, c_row, a.from(r), b, b_step, steps, add);
    });
}

// `columns` is a multiple of LANES; steps are a number of words, or a range of runs. With `add` the product
// is added to what C holds.
template <class W, class Steps>
static inline void gemm(float* c, std::int64_t c_row, WordMatrix a, const Word* b, std::int64_t b_step,
                        std::int64_t rows, std::int64_t columns, Steps steps, bool add = false) {
    std::int64_t j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        gemm_columns<W, 2>(c + j, c_row, a, b + j, b_step, rows, steps, add);
    if (j < columns) gemm_columns<W, 1>(c + j, c_row, a, b + j, b_step, rows, steps, add);
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
