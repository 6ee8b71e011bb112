// The inverse cosine transform of a block of 8x8 coefficients to 8x8, 4x4 or 2x2 pixels, in the order of
// `coefficient_place`.
//
// The one of 13 bits that libjpeg calls `islow`, after Loeffler, Ligtenberg and Moschytz 1989, and its
// reduced forms. Sums of 16 bits wrap and intermediate results saturate where those of libjpeg-turbo's vector
// code do, so that pixels are equal whatever is in the file.
//
// Included by files that are compiled once per instruction set, from AVX2 on.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

// Beyond this limit libjpeg-turbo's code treats a block of but one row of coefficients, or one of but one
// pixel, otherwise than all others: such a file is left to it. No image of 8 bits comes near.
constexpr std::int32_t MOST_COEFFICIENT = 4087;

constexpr std::int32_t fixed(double x) { return static_cast<std::int32_t>(x * 8192 + (x < 0 ? -0.5 : 0.5)); }

static inline __m256i factors(double first, double second) {
    return _mm256_set1_epi32((fixed(first) & 0xffff) | fixed(second) * 65536);
}

// Eight columns, the pairs of whose inputs lie side by side.
struct Columns {
    __m256i pair04, pair26, pair71, pair53;
};

// (first + second) * 2^13 or (first - second) * 2^13, wrapped to 16 bits before.
static inline __m256i scaled_sum(__m256i pair, int shift) {
    const __m256i sum = _mm256_add_epi16(pair, _mm256_srli_epi32(pair, 16));
    return _mm256_srai_epi32(_mm256_slli_epi32(sum, 16), 16 - shift);
}
static inline __m256i scaled_difference(__m256i pair, int shift) {
    const __m256i difference = _mm256_sub_epi16(pair, _mm256_srli_epi32(pair, 16));
    return _mm256_srai_epi32(_mm256_slli_epi32(difference, 16), 16 - shift);
}
static inline __m256i scaled_first(__m256i pair, int shift) {
    return _mm256_srai_epi32(_mm256_slli_epi32(pair, 16), 16 - shift);
}

static inline __m256i turned(__m256i pair) {
    return _mm256_or_si256(_mm256_slli_epi32(pair, 16), _mm256_srli_epi32(pair, 16));
}

static inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
static inline __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }

// `side` outputs of each column, divided by 2^shift and rounded.
template <int side, int shift>
static inline void transform(const Columns& in, __m256i* out) {
    constexpr int more = side == 8 ? 0 : side == 4 ? 1 : 2;
    const __m256i half = _mm256_set1_epi32(1 << (shift + more - 1));
    const auto put = [&](int i, __m256i even, __m256i odd) {
        out[i] = _mm256_srai_epi32(add(even, odd), shift + more);
        out[side - 1 - i] = _mm256_srai_epi32(sub(even, odd), shift + more);
    };
    if constexpr (side == 2) {
        const __m256i odd = add(_mm256_madd_epi16(in.pair71, factors(-0.720959822, 3.624509785)),
                                _mm256_madd_epi16(in.pair53, factors(0.850430095, -1.272758580)));
        put(0, add(scaled_first(in.pair04, 15), half), odd);
    } else if constexpr (side == 4) {
        const __m256i middle = add(scaled_first(in.pair04, 14), half);
        const __m256i even = _mm256_madd_epi16(in.pair26, factors(1.847759065, -0.765366865));
        const __m256i inner = add(_mm256_madd_epi16(in.pair71, factors(-0.211164243, 1.061594337)),
                                  _mm256_madd_epi16(in.pair53, factors(1.451774981, -2.172734803)));
        const __m256i outer = add(_mm256_madd_epi16(in.pair71, factors(-0.509795579, 2.562915447)),
                                  _mm256_madd_epi16(in.pair53, factors(-0.601344887, 0.899976223)));
        put(0, add(middle, even), outer);
        put(1, sub(middle, even), inner);
    } else {
        const __m256i sum = add(scaled_sum(in.pair04, 13), half);
        const __m256i difference = add(scaled_difference(in.pair04, 13), half);
        // Sums of rounded constants, as the algorithm has them; a constant of the sum may round otherwise.
        const auto pair = [](std::int32_t first, std::int32_t second) {
            return _mm256_set1_epi32((first & 0xffff) | second * 65536);
        };
        constexpr std::int32_t a = fixed(0.541196100), b = fixed(0.765366865), c = fixed(1.847759065);
        const __m256i even_outer = _mm256_madd_epi16(in.pair26, pair(a + b, a));
        const __m256i even_inner = _mm256_madd_epi16(in.pair26, pair(a, a - c));

        constexpr std::int32_t d = fixed(1.175875602), e = fixed(1.961570560), f = fixed(0.390180644);
        const __m256i cross = _mm256_add_epi16(in.pair71, turned(in.pair53));
        const __m256i z3 = _mm256_madd_epi16(cross, pair(d - e, d));
        const __m256i z4 = _mm256_madd_epi16(cross, pair(d, d - f));
        constexpr std::int32_t g = fixed(0.899976223), h = fixed(2.562915447);
        const __m256i odd0 = add(_mm256_madd_epi16(in.pair71, pair(-g, fixed(1.501321110) - g)), z4);
        const __m256i odd1 = add(_mm256_madd_epi16(in.pair53, pair(-h, fixed(3.072711026) - h)), z3);
        const __m256i odd2 = add(_mm256_madd_epi16(in.pair53, pair(fixed(2.053119869) - h, -h)), z4);
        const __m256i odd3 = add(_mm256_madd_epi16(in.pair71, pair(fixed(0.298631336) - g, -g)), z3);
        put(0, add(sum, even_outer), odd0);
        put(1, add(difference, even_inner), odd1);
        put(2, sub(difference, even_inner), odd2);
        put(3, sub(sum, even_outer), odd3);
    }
}

// Eight rows of 32-bit numbers, in the order of `coefficient_place`, to eight columns of 16 bits.
static inline Columns turn(const __m256i* rows) {
    __m256i halves[4];
    for (int i = 0; i < 2; ++i) {
        const __m256i upper = _mm256_packs_epi32(rows[2 * i], rows[2 * i + 1]);
        const __m256i lower = _mm256_packs_epi32(rows[2 * i + 4], rows[2 * i + 5]);
        const __m256i first = _mm256_permute2x128_si256(upper, lower, 0x20);
        const __m256i second = _mm256_permute2x128_si256(upper, lower, 0x31);
        halves[2 * i] = _mm256_unpacklo_epi16(first, second);
        halves[2 * i + 1] = _mm256_unpackhi_epi16(first, second);
    }
    const __m256i a = _mm256_unpacklo_epi32(halves[0], halves[1]);
    const __m256i b = _mm256_unpackhi_epi32(halves[0], halves[1]);
    const __m256i c = _mm256_unpacklo_epi32(halves[2], halves[3]);
    const __m256i d = _mm256_unpackhi_epi32(halves[2], halves[3]);
    return {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d)};
}

// Columns of pixels, in each the row's number, to rows. A pixel is centred on 0 before and on 128 after.
template <int side>
static inline void put(const __m256i* columns, std::uint8_t* pixels, std::int64_t pitch) {
    const __m256i centre = _mm256_set1_epi8(-128);
    const __m256i by_row = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,  //
                                            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // Four columns; in each 32 bits what one row has of them.
    const auto four = [&](const __m256i* c) {
        const __m256i packed =
            _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
        return _mm256_shuffle_epi8(_mm256_add_epi8(packed, centre), by_row);
    };
    if constexpr (side == 8) {
        const __m256i left = four(columns), right = four(columns + 4);
        const __m256i even = _mm256_unpacklo_epi32(left, right), odd = _mm256_unpackhi_epi32(left, right);
        const auto two_rows = [&](__m128i rows, std::uint8_t* to) {
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to), rows);
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to + pitch), _mm_unpackhi_epi64(rows, rows));
        };
        two_rows(_mm256_castsi256_si128(even), pixels);
        two_rows(_mm256_castsi256_si128(odd), pixels + 2 * pitch);
        two_rows(_mm256_extracti128_si256(even, 1), pixels + 4 * pitch);
        two_rows(_mm256_extracti128_si256(odd, 1), pixels + 6 * pitch);
    } else if constexpr (side == 4) {
        alignas(16) std::uint8_t rows[16];
        _mm_store_si128(reinterpret_cast<__m128i*>(rows), _mm256_castsi256_si128(four(columns)));
        for (int y = 0; y < 4; ++y) std::memcpy(pixels + y * pitch, rows + 4 * y, 4);
    } else {
        const __m256i both[4] = {columns[0], columns[1], columns[0], columns[1]};
        alignas(16) std::uint8_t rows[16];
        _mm_store_si128(reinterpret_cast<__m128i*>(rows), _mm256_castsi256_si128(four(both)));
        for (int y = 0; y < 2; ++y) std::memcpy(pixels + y * pitch, rows + 4 * y, 2);
    }
}

static inline bool beyond_16_bits(__m256i x) {
    const __m256i high = _mm256_srai_epi32(x, 15);
    return !_mm256_testz_si256(_mm256_xor_si256(high, _mm256_srai_epi32(x, 31)), _mm256_set1_epi32(-1));
}

template <int side>
static inline bool inverse_transform(const std::int16_t* coefficients, const std::int16_t* quantisation,
                                     std::uint8_t* pixels, std::int64_t pitch) {
    const auto load = [&](int i) {
        const auto at = [i](const std::int16_t* from) {
            return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 16 * i));
        };
        return _mm256_mullo_epi16(at(coefficients), at(quantisation));
    };
    const Columns in{load(0), load(1), load(2), load(3)};
    const __m256i beyond =
        _mm256_or_si256(_mm256_cmpgt_epi16(in.pair04, _mm256_set1_epi16(MOST_COEFFICIENT)),
                        _mm256_cmpgt_epi16(_mm256_set1_epi16(-MOST_COEFFICIENT), in.pair04));
    if (!_mm256_testz_si256(beyond, beyond)) return false;
    __m256i rows[8];
    transform<side, 11>(in, rows);
    // The library's vector code for two outputs does not saturate here as the others do.
    if (side == 2 && (beyond_16_bits(rows[0]) || beyond_16_bits(rows[1]))) return false;
    for (int i = side; i < 8; ++i) rows[i] = _mm256_setzero_si256();
    __m256i columns[8];
    transform<side, 18>(turn(rows), columns);
    put<side>(columns, pixels, pitch);
    return true;
}

// Of a block that has but its first coefficient every pixel is the same.
static inline bool fill(std::int32_t first, int side, std::uint8_t* pixels, std::int64_t pitch) {
    if (first > MOST_COEFFICIENT || first < -MOST_COEFFICIENT) return false;
    const std::int32_t level = ((first + 4) >> 3) + 128;
    const int byte = level < 0 ? 0 : level > 255 ? 255 : level;
    for (int y = 0; y < side; ++y) std::memset(pixels + y * pitch, byte, static_cast<std::size_t>(side));
    return true;
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
