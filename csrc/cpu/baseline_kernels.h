// The inner loops of the baseline JPEG decoder; see baseline.h. They are compiled for AVX2 and beyond only.
#pragma once

#include <cstdint>

#include "cpu/huffman.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

// Coded data without its stuffed bytes. CODE_SLACK bytes beyond its end may be read too, whatever they are.
struct CodeReader {
    std::uint64_t window = 0;  // the coming bits, the first of them highest
    unsigned valid = 0;        // how many of them are there
    const std::uint8_t* next = nullptr;
    const std::uint8_t* end = nullptr;

    // Whether more bits were taken than there are.
    bool overrun() const { return next - (valid >> 3) > end; }
};
// A minimum coded unit has at most 6 blocks of 64 symbols of 31 bits.
constexpr std::int64_t CODE_SLACK = 2048;

constexpr int MOST_COMPONENTS = 3, MOST_BLOCKS = 6;

// One block of a minimum coded unit (MCU).
struct McuBlock {
    int component, column, row;
    std::int64_t offset;  // of its first pixel, from that of the MCU in the component's plane
};

struct McuComponent {
    const DcTable* dc;
    const AcTable* ac;
    // In the order of the inverse transform; see `coefficient_place`.
    const std::int16_t* quantisation;
    int side;            // of a block in pixels: 8, 4, 2 or 1
    std::int64_t pitch;  // of the plane
    std::int64_t step;   // from MCU to MCU in the plane
};

struct McuLayout {
    int blocks;
    McuBlock block[MOST_BLOCKS];
    McuComponent component[MOST_COMPONENTS];
};

// Where the inverse transform has the coefficient of vertical frequency v and horizontal frequency u.
//
// A processor multiplies pairs of neighbours and adds them up, which is how the odd and the even frequencies
// of a column meet. So the rows 0 and 4, 2 and 6, 7 and 1, 5 and 3 lie interleaved, each pair in a register;
// the order of the columns makes the same pairs out of them when the transform turns from columns to rows.
constexpr int coefficient_place(int v, int u) {
    constexpr int pair[8] = {0, 2, 1, 3, 0, 3, 1, 2}, second[8] = {0, 1, 0, 1, 1, 0, 1, 0};
    constexpr int column[8] = {0, 6, 1, 7, 4, 3, 5, 2};
    return pair[v] * 16 + column[u] * 2 + second[v];
}

// T.81, figure 5: the vertical frequency and the horizontal one in the order in which they are coded.
constexpr int ZIGZAG[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                            12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                            35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                            58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

#define IMAGEN_FAST_DECLARE(set)                                                                          \
    namespace set {                                                                                       \
    /* `count` MCUs side by side to pixels, from planes[component] on; without planes only read past. The \
       first coefficients go on from `last`. False where something is not as it should be. */             \
    bool decode_mcus(CodeReader& code, const McuLayout& layout, std::int32_t* last, std::int64_t count,   \
                     std::uint8_t* const* planes);                                                        \
    /* The same to coefficients [count, blocks, 64] in the order of `coefficient_place`. */               \
    bool decode_coefficients(CodeReader& code, const McuLayout& layout, std::int32_t* last,               \
                             std::int64_t count, std::int16_t* out);                                      \
    }
IMAGEN_FAST_FOR_EACH_VECTOR_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
