// Compiled once per instruction set; see instruction_set.h.
#include "cpu/resample.h"

#include <algorithm>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

#if defined(__AVX2__)

inline __m256i pair(const std::int16_t* weights) {
    std::int32_t two;
    std::memcpy(&two, weights, sizeof two);
    return _mm256_set1_epi32(two);
}

#endif

}  // namespace

#if defined(__AVX2__)

// Four pixels at a time: the colours of two become pairs of 16-bit numbers side by side, of which an
// instruction multiplies and adds each with the pair of their weights.
namespace {

inline __m256i colour_pairs() {
    return _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
}

inline __m128i bytes16(const std::uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

inline __m128i weights4(const std::int16_t* from) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
}

void resample_one(const Taps& taps, const std::uint8_t* pixels, std::uint8_t* out) {
    const __m256i pairs = colour_pairs(), twice = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const int bits = taps.bits();
    const __m128i half = _mm_set1_epi32(1 << (bits - 1)), shift = _mm_cvtsi32_si128(bits);
    const std::int64_t outputs = taps.outputs(), pitch = taps.pitch();
    const std::int16_t* weights = taps.weights(0);
    for (std::int64_t i = 0; i < outputs; ++i, weights += pitch) {
        const Reach& reach = taps.reach(i);
        const std::uint8_t* from = pixels + 3 * reach.first;
        __m256i sum = _mm256_setzero_si256();
        for (std::int64_t k = 0; k < reach.count; k += WEIGHTS_TOGETHER) {
            const __m256i colours =
                _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes16(from + 3 * k)), pairs);
            const __m256i by =
                _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(weights4(weights + k)), twice);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(colours, by));
        }
        __m128i both = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        both = _mm_sra_epi32(_mm_add_epi32(both, half), shift);
        both = _mm_packus_epi16(_mm_packs_epi32(both, both), both);
        const std::int32_t colour = _mm_cvtsi128_si32(both);
        std::memcpy(out + 3 * i, &colour, sizeof colour);  // the fourth byte is the next output's
    }
}

#if defined(__AVX512BW__)

inline __m512i weight_pair(const std::int16_t* from) {
    std::int32_t two;
    std::memcpy(&two, from, sizeof two);
    return _mm512_set1_epi32(two);
}

// Four rows, one in each quarter of a register.
void resample_four(const Taps& taps, const std::uint8_t* pixels, std::int64_t pixels_pitch, std::uint8_t* out,
                   std::int64_t out_pitch) {
    const __m512i first_pairs = _mm512_broadcast_i32x4(_mm256_castsi256_si128(colour_pairs()));
    const __m512i second_pairs = _mm512_broadcast_i32x4(_mm256_extracti128_si256(colour_pairs(), 1));
    const int bits = taps.bits();
    const __m512i half = _mm512_set1_epi32(1 << (bits - 1));
    const __m128i shift = _mm_cvtsi32_si128(bits);
    const std::int64_t outputs = taps.outputs(), pitch = taps.pitch();
    const std::int16_t* weights = taps.weights(0);
    for (std::int64_t i = 0; i < outputs; ++i, weights += pitch) {
        const Reach& reach = taps.reach(i);
        const std::uint8_t* from = pixels + 3 * reach.first;
        __m512i sum = half;
        for (std::int64_t k = 0; k < reach.count; k += WEIGHTS_TOGETHER) {
            const std::uint8_t* at = from + 3 * k;
            __m512i four = _mm512_broadcast_i32x4(bytes16(at));
            four = _mm512_mask_broadcast_i32x4(four, 0x00f0, bytes16(at + pixels_pitch));
            four = _mm512_mask_broadcast_i32x4(four, 0x0f00, bytes16(at + 2 * pixels_pitch));
            four = _mm512_mask_broadcast_i32x4(four, 0xf000, bytes16(at + 3 * pixels_pitch));
            const __m512i first = _mm512_shuffle_epi8(four, first_pairs);
            const __m512i second = _mm512_shuffle_epi8(four, second_pairs);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(first, weight_pair(weights + k)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(second, weight_pair(weights + k + 2)));
        }
        sum = _mm512_sra_epi32(sum, shift);
        sum = _mm512_packs_epi32(sum, sum);
        sum = _mm512_packus_epi16(sum, sum);
        const __m128i rows[4] = {_mm512_castsi512_si128(sum), _mm512_extracti32x4_epi32(sum, 1),
                                 _mm512_extracti32x4_epi32(sum, 2), _mm512_extracti32x4_epi32(sum, 3)};
        for (int row = 0; row < 4; ++row) {
            const std::int32_t colour = _mm_cvtsi128_si32(rows[row]);
            std::memcpy(out + row * out_pitch + 3 * i, &colour,
                        sizeof colour);  // the fourth byte is the next output's
        }
    }
}

#endif

}  // namespace

void resample_rows(const Taps& taps, const std::uint8_t* pixels, std::int64_t pixels_pitch, std::int64_t rows,
                   std::uint8_t* out, std::int64_t out_pitch) {
    std::int64_t row = 0;
#if defined(__AVX512BW__)
    for (; row + 4 <= rows; row += 4)
        resample_four(taps, pixels + row * pixels_pitch, pixels_pitch, out + row * out_pitch, out_pitch);
#endif
    for (; row < rows; ++row) resample_one(taps, pixels + row * pixels_pitch, out + row * out_pitch);
}

void resample_column(const Taps& taps, std::int64_t output, const std::uint8_t* rows, std::int64_t pitch,
                     std::int64_t bytes, std::uint8_t* out) {
    const Reach& reach = taps.reach(output);
    const std::int16_t* weights = taps.weights(output);
    const int bits = taps.bits();
    const __m128i shift = _mm_cvtsi32_si128(bits);
    const __m256i zero = _mm256_setzero_si256();
    rows += reach.first * pitch;
    for (std::int64_t at = 0; at < bytes; at += 32) {
        __m256i sum[4];
        for (__m256i& s : sum) s = _mm256_set1_epi32(1 << (bits - 1));
        for (std::int64_t k = 0; k < reach.count; k += 2) {
            const std::uint8_t* from = rows + k * pitch + at;
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
            // Beyond the last row the weight is 0.
            const std::int64_t next = k + 1 < reach.count ? pitch : 0;
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + next));
            const __m256i by = pair(weights + k);
            // a0 b0 a1 b1 ... as bytes, then as pairs of 16-bit numbers.
            const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            const __m256i pairs[4] = {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
                                      _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
            for (int i = 0; i < 4; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs[i], by));
        }
        for (__m256i& s : sum) s = _mm256_sra_epi32(s, shift);
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(out + at),
            _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3])));
    }
}

#else

void resample_rows(const Taps& taps, const std::uint8_t* pixels, std::int64_t pixels_pitch, std::int64_t rows,
                   std::uint8_t* out, std::int64_t out_pitch) {
    for (std::int64_t row = 0; row < rows; ++row, pixels += pixels_pitch, out += out_pitch)
        for (std::int64_t i = 0; i < taps.outputs(); ++i) {
            const Reach& reach = taps.reach(i);
            const std::int16_t* weights = taps.weights(i);
            std::int32_t sum[3] = {};
            for (std::int64_t k = 0; k < reach.count; ++k)
                for (int c = 0; c < 3; ++c) sum[c] += weights[k] * pixels[3 * (reach.first + k) + c];
            for (int c = 0; c < 3; ++c) out[3 * i + c] = clipped(sum[c], taps.bits());
        }
}

void resample_column(const Taps& taps, std::int64_t output, const std::uint8_t* rows, std::int64_t pitch,
                     std::int64_t bytes, std::uint8_t* out) {
    const Reach& reach = taps.reach(output);
    const std::int16_t* weights = taps.weights(output);
    constexpr std::int64_t TOGETHER = 64;
    for (std::int64_t at = 0; at < bytes; at += TOGETHER) {
        const std::int64_t many = std::min(TOGETHER, bytes - at);
        std::int32_t sum[TOGETHER] = {};
        for (std::int64_t k = 0; k < reach.count; ++k) {
            const std::uint8_t* from = rows + (reach.first + k) * pitch + at;
            for (std::int64_t x = 0; x < many; ++x) sum[x] += weights[k] * from[x];
        }
        for (std::int64_t x = 0; x < many; ++x) out[at + x] = clipped(sum[x], taps.bits());
    }
}

#endif

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
