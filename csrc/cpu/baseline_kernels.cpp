// Compiled once per instruction set; see instruction_set.h.
#include "cpu/baseline_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <array>
#include <cstring>

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

// --- Huffman codes
// ------------------------------------------------------------------------------------------

// At least 56 bits are there afterwards. Without a branch: a byte that is read twice has the same bits both
// times.
inline void refill(std::uint64_t& window, unsigned& valid, const std::uint8_t*& next) {
    std::uint64_t coming;
    std::memcpy(&coming, next, sizeof coming);
    window |= __builtin_bswap64(coming) >> valid;
    next += (63 - valid) >> 3;
    valid |= 56;
}

// T.81, F.2.2.1: `size` bits after the first `skipped` ones; a number that begins with a 0 is negative.
inline std::int32_t value_of(std::uint64_t window, unsigned skipped, unsigned size) {
    const std::uint64_t bits = window << skipped;
    const std::int64_t negative = static_cast<std::int64_t>(~bits) >> 63;
    return static_cast<std::int32_t>(bits >> 1 >> (63 - size)) -
           static_cast<std::int32_t>(negative & ((1 << size) - 1));
}

// Where a coefficient goes by its number in the order of coding. All that a broken file can make of a number
// goes to a place that nothing reads.
constexpr int NOWHERE = 64, MOST_NUMBER = 63 + END_OF_BLOCK + 17;
constexpr std::array<std::uint8_t, MOST_NUMBER> places() {
    std::array<std::uint8_t, MOST_NUMBER> found{};
    for (int i = 0; i < MOST_NUMBER; ++i)
        found[static_cast<std::size_t>(i)] =
            static_cast<std::uint8_t>(i < 64 ? coefficient_place(ZIGZAG[i] / 8, ZIGZAG[i] % 8) : NOWHERE);
    return found;
}
constexpr auto PLACES = places();

struct alignas(64) Block {
    std::int16_t coefficients[NOWHERE + 1];

    void clear() {
        for (int i = 0; i < 64; i += 16)
            _mm256_store_si256(reinterpret_cast<__m256i*>(coefficients + i), _mm256_setzero_si256());
    }
};

inline bool dc_difference(CodeReader& code, const DcTable& table, std::int32_t& difference) {
    refill(code.window, code.valid, code.next);
    unsigned length, size;
    if (const unsigned found = table.look[code.window >> (64 - DcTable::BITS)]) {
        length = found & 255;
        size = found >> 8;
    } else {
        const HuffmanSearch::Found slow = table.search.find(static_cast<std::uint32_t>(code.window >> 48));
        if (!slow.length) return false;
        length = static_cast<unsigned>(slow.length);
        size = static_cast<unsigned>(slow.symbol);
    }
    difference = value_of(code.window, length, size);
    code.window <<= length + size;
    code.valid -= length + size;
    return true;
}

// The number of the last coefficient other than 0 (or of one shortly before it that a code skipped to), at
// least END_OF_BLOCK where the file ends the block itself; -1: broken.
//
// A function of its own, so that all it needs stays in registers.
template <bool keep>
__attribute__((noinline)) int ac_coefficients(CodeReader& code, const AcTable& table, std::int16_t* block) {
    std::uint64_t window = code.window;
    unsigned valid = code.valid;
    const std::uint8_t* next = code.next;
    unsigned number = 0, first;
    std::uint64_t entry;
    for (;;) {
        refill(window, valid, next);
        // Five looks have at most 55 bits.
#pragma GCC unroll 5
        for (int i = 0; i < 5; ++i) {
            entry = table.look[window >> (64 - AcTable::BITS)];
            if (__builtin_expect(!(entry & 0xff0000), 0)) goto only_a_part;
            first = number + (entry >> 8 & 255);
            number += entry >> 16 & 255;
            if (keep) {
                // Where there is but one, it is written twice.
                block[PLACES[first]] = static_cast<std::int16_t>(entry >> 32);
                block[PLACES[number]] = static_cast<std::int16_t>(entry >> 48);
            }
            window <<= entry & 63;
            valid -= entry & 63;
            if (number > 62) goto over;
        }
        continue;

    only_a_part:
        refill(window, valid, next);
        if (!entry) {
            const HuffmanSearch::Found found = table.search.find(static_cast<std::uint32_t>(window >> 48));
            if (!found.length) return -1;
            entry = part_of_symbol(found.length, found.symbol);
        }
        first = number += entry >> 8 & 255;
        const unsigned size = entry >> 24 & 255, bits = entry & 255;
        if (keep) block[PLACES[number]] = static_cast<std::int16_t>(value_of(window, bits - size, size));
        window <<= bits;
        valid -= bits;
        if (number > 62) break;
    }

over:
    // The first of two symbols filled the block: the second is none of its, and there is no bit of it left in
    // the window.
    if (__builtin_expect(first != number && first > 62, 0)) {
        const unsigned back = static_cast<unsigned>((entry & 255) - (entry >> 24 & 255));
        const std::uint8_t* at = next - ((valid + back + 7) >> 3);
        const unsigned taken = (0 - (valid + back)) & 7;
        std::memcpy(&window, at, sizeof window);
        window = __builtin_bswap64(window) << taken;
        next = at + 7;
        valid = 56 - taken;
        number = first;
    }
    code.window = window;
    code.valid = valid;
    code.next = next;
    // A run past the last coefficient.
    return number == 63 || number >= END_OF_BLOCK ? static_cast<int>(number) : -1;
}

// --- the inverse cosine transform
// -----------------------------------------------------------------------------
//
// The one of 13 bits that libjpeg calls `islow`, after Loeffler, Ligtenberg and Moschytz 1989, and its
// reduced forms of 4 and 2 outputs. Sums of 16 bits wrap and intermediate results saturate where those of
// libjpeg-turbo's vector code do, so that pixels are equal whatever is in the file. Beyond this limit that
// code treats a block of but one row of coefficients, or one of but one pixel, otherwise than all others, and
// the file is left to it; no image of 8 bits comes near.
constexpr std::int32_t MOST_COEFFICIENT = 4087;

constexpr std::int32_t fixed(double x) { return static_cast<std::int32_t>(x * 8192 + (x < 0 ? -0.5 : 0.5)); }

inline __m256i factors(double first, double second) {
    return _mm256_set1_epi32((fixed(first) & 0xffff) | fixed(second) * 65536);
}

// Eight columns, the pairs of whose inputs lie side by side.
struct Columns {
    __m256i pair04, pair26, pair71, pair53;
};

// (first + second) * 2^13 or (first - second) * 2^13, wrapped to 16 bits before.
inline __m256i scaled_sum(__m256i pair, int shift) {
    const __m256i sum = _mm256_add_epi16(pair, _mm256_srli_epi32(pair, 16));
    return _mm256_srai_epi32(_mm256_slli_epi32(sum, 16), 16 - shift);
}
inline __m256i scaled_difference(__m256i pair, int shift) {
    const __m256i difference = _mm256_sub_epi16(pair, _mm256_srli_epi32(pair, 16));
    return _mm256_srai_epi32(_mm256_slli_epi32(difference, 16), 16 - shift);
}
inline __m256i scaled_first(__m256i pair, int shift) {
    return _mm256_srai_epi32(_mm256_slli_epi32(pair, 16), 16 - shift);
}

inline __m256i turned(__m256i pair) {
    return _mm256_or_si256(_mm256_slli_epi32(pair, 16), _mm256_srli_epi32(pair, 16));
}

inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
inline __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }

// `side` outputs of each column, divided by 2^shift and rounded.
template <int side, int shift>
inline void transform(const Columns& in, __m256i* out) {
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
inline Columns turn(const __m256i* rows) {
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
inline void put(const __m256i* columns, std::uint8_t* pixels, std::int64_t pitch) {
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

inline bool beyond_16_bits(__m256i x) {
    const __m256i high = _mm256_srai_epi32(x, 15);
    return !_mm256_testz_si256(_mm256_xor_si256(high, _mm256_srai_epi32(x, 31)), _mm256_set1_epi32(-1));
}

template <int side>
inline bool inverse_transform(const Block& block, const std::int16_t* quantisation, std::uint8_t* pixels,
                              std::int64_t pitch) {
    const auto load = [&](int i) {
        const auto at = [i](const std::int16_t* from) {
            return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 16 * i));
        };
        return _mm256_mullo_epi16(at(block.coefficients), at(quantisation));
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
inline bool fill(std::int32_t first, int side, std::uint8_t* pixels, std::int64_t pitch) {
    if (first > MOST_COEFFICIENT || first < -MOST_COEFFICIENT) return false;
    const std::int32_t level = ((first + 4) >> 3) + 128;
    const int byte = level < 0 ? 0 : level > 255 ? 255 : level;
    for (int y = 0; y < side; ++y) std::memset(pixels + y * pitch, byte, static_cast<std::size_t>(side));
    return true;
}

inline bool put_block(const Block& block, const McuComponent& component, bool flat, std::uint8_t* pixels) {
    const std::int64_t pitch = component.pitch;
    if (flat) {
        const auto first = static_cast<std::int16_t>(block.coefficients[0] * component.quantisation[0]);
        return fill(first, component.side, pixels, pitch);
    }
    if (component.side == 8) return inverse_transform<8>(block, component.quantisation, pixels, pitch);
    if (component.side == 4) return inverse_transform<4>(block, component.quantisation, pixels, pitch);
    return inverse_transform<2>(block, component.quantisation, pixels, pitch);
}

inline bool next_first(CodeReader& code, const McuComponent& component, std::int32_t& last) {
    std::int32_t difference;
    if (!dc_difference(code, *component.dc, difference)) return false;
    last += difference;
    return last == static_cast<std::int16_t>(last);
}

}  // namespace

bool decode_mcus(CodeReader& code, const McuLayout& layout, std::int32_t* last, std::int64_t count,
                 std::uint8_t* const* planes) {
    Block block;
    for (std::int64_t m = 0; m < count; ++m) {
        for (int b = 0; b < layout.blocks; ++b) {
            const int c = layout.block[b].component;
            const McuComponent& component = layout.component[c];
            if (!next_first(code, component, last[c])) return false;
            // One pixel a block is its first coefficient's.
            const bool look = planes && component.side > 1;
            if (look) block.clear();
            block.coefficients[0] = static_cast<std::int16_t>(last[c]);
            const int number = look ? ac_coefficients<true>(code, *component.ac, block.coefficients)
                                    : ac_coefficients<false>(code, *component.ac, nullptr);
            if (number < 0) return false;
            if (planes && !put_block(block, component, !look || number == END_OF_BLOCK,
                                     planes[c] + m * component.step + layout.block[b].offset))
                return false;
        }
        if (code.overrun()) return false;
    }
    return true;
}

bool decode_coefficients(CodeReader& code, const McuLayout& layout, std::int32_t* last, std::int64_t count,
                         std::int16_t* out) {
    Block block;
    for (std::int64_t m = 0; m < count; ++m) {
        for (int b = 0; b < layout.blocks; ++b, out += 64) {
            const int c = layout.block[b].component;
            const McuComponent& component = layout.component[c];
            if (!next_first(code, component, last[c])) return false;
            block.clear();
            block.coefficients[0] = static_cast<std::int16_t>(last[c]);
            if (ac_coefficients<true>(code, *component.ac, block.coefficients) < 0) return false;
            std::memcpy(out, block.coefficients, 64 * sizeof *out);
        }
        if (code.overrun()) return false;
    }
    return true;
}

// --- colour -----------------------------------------------------------------------------------------------

namespace {

inline __m256i load16(const std::uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// libjpeg's fancy upsampling: of the two that a value becomes one is rounded up in the middle, the other
// down.
template <class Value>
inline void widen_by(Value value, std::int64_t count, int shift, std::uint8_t* out) {
    const __m256i left_half = _mm256_set1_epi16(static_cast<short>(shift == 2 ? 1 : 8));
    const __m256i right_half = _mm256_set1_epi16(static_cast<short>(shift == 2 ? 2 : 7));
    for (std::int64_t i = 0; i < count; i += 16) {
        const __m256i here = value(i), thrice = _mm256_add_epi16(here, _mm256_slli_epi16(here, 1));
        const __m256i left =
            _mm256_srli_epi16(_mm256_add_epi16(_mm256_add_epi16(thrice, value(i - 1)), left_half), shift);
        const __m256i right =
            _mm256_srli_epi16(_mm256_add_epi16(_mm256_add_epi16(thrice, value(i + 1)), right_half), shift);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i),
                            _mm256_or_si256(left, _mm256_slli_epi16(right, 8)));
    }
}

}  // namespace

void widen(const std::uint8_t* row, std::int64_t count, std::uint8_t* out) {
    widen_by([row](std::int64_t i) { return load16(row + i); }, count, 2, out);
}

void widen_between(const std::uint8_t* row, const std::uint8_t* further, std::int64_t count,
                   std::uint8_t* out) {
    const auto both = [row, further](std::int64_t i) {
        const __m256i near = load16(row + i);
        return _mm256_add_epi16(_mm256_add_epi16(near, _mm256_slli_epi16(near, 1)), load16(further + i));
    };
    widen_by(both, count, 4, out);
}

namespace {

// x * factor / 2^16, rounded, for an even factor's half: the product of 2x loses its last bit only after one
// is added.
inline __m256i rounded_product(__m256i x, short factor) {
    const __m256i product = _mm256_mulhi_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(factor));
    return _mm256_srai_epi16(_mm256_add_epi16(product, _mm256_set1_epi16(1)), 1);
}

}  // namespace

// JFIF's conversion in libjpeg's 16 binary places.
void to_rgb(const std::uint8_t* luma, const std::uint8_t* blue, const std::uint8_t* red, std::int64_t count,
            std::uint8_t* out) {
    constexpr auto fixed16 = [](double x) { return static_cast<int>(x * 65536 + 0.5); };
    constexpr int red_in_green = fixed16(0.71414), blue_in_green = fixed16(0.34414);
    const __m256i green_factors =
        _mm256_set1_epi32((-blue_in_green & 0xffff) | (65536 - red_in_green) * 65536);
    const __m256i centre = _mm256_set1_epi16(128), half = _mm256_set1_epi32(1 << 15);
    // Sixteen pixels of one colour, spread to every third byte of 48.
    const __m128i spread[3][3] = {
        {_mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
         _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1),
         _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1)},
        {_mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
         _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10),
         _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1)},
        {_mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1),
         _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1),
         _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15)},
    };
    const auto bytes = [](__m256i x) {
        return _mm_packus_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    };
    for (std::int64_t i = 0; i < count; i += 16, out += 48) {
        const __m256i y = load16(luma + i);
        const __m256i b = _mm256_sub_epi16(load16(blue + i), centre);
        const __m256i r = _mm256_sub_epi16(load16(red + i), centre);
        // What is beyond 16 bits of a factor is added whole: 1.402 = 1 + 0.402, 1.772 = 2 - 0.228.
        const __m256i more_red = _mm256_add_epi16(r, rounded_product(r, fixed16(1.40200) - 65536));
        const __m256i more_blue =
            _mm256_add_epi16(_mm256_add_epi16(b, b), rounded_product(b, fixed16(1.77200) - 2 * 65536));
        // -0.71414 = 0.28586 - 1.
        const auto green_of = [&](__m256i pairs) {
            return _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(pairs, green_factors), half), 16);
        };
        const __m256i more_green = _mm256_sub_epi16(
            _mm256_packs_epi32(green_of(_mm256_unpacklo_epi16(b, r)), green_of(_mm256_unpackhi_epi16(b, r))),
            r);
        const __m128i colours[3] = {bytes(_mm256_add_epi16(y, more_red)),
                                    bytes(_mm256_add_epi16(y, more_green)),
                                    bytes(_mm256_add_epi16(y, more_blue))};
        for (int third = 0; third < 3; ++third) {
            const __m128i mixed = _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(colours[0], spread[third][0]),
                                                            _mm_shuffle_epi8(colours[1], spread[third][1])),
                                               _mm_shuffle_epi8(colours[2], spread[third][2]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * third), mixed);
        }
    }
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET

#endif
