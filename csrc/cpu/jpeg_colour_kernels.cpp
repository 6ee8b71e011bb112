// Compiled once per instruction set; see instruction_set.h.
#include "cpu/jpeg_colour.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

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
