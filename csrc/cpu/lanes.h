// Sixteen numbers at a time with AVX-512: what the attention kernels need beside products.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace imagen_fast::avx512_bf16 {

constexpr int LANES = 16;

// The first n of sixteen lanes, or all of them.
static inline __mmask16 mask_of(std::int64_t n) {
    return static_cast<__mmask16>(n >= LANES ? 0xffff : (1u << std::max<std::int64_t>(n, 0)) - 1);
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

// 2^x; x at most 127, and anything below -127 gives 0 or nearly. DEGREE of the Taylor series of 2^f for
// |f| <= 1/2: 7 leaves an error below a unit in the last place of a float, 4 leaves 4e-5, a fiftieth of the
// rounding to bfloat16.
template <int DEGREE>
static inline __m512 exp2(__m512 x) {
    constexpr float series[] = {1.0f,          6.9314718e-1f, 2.4022651e-1f, 5.5504109e-2f,
                                9.6181291e-3f, 1.3333558e-3f, 1.5403530e-4f, 1.5252734e-5f};
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(series[DEGREE]);
    for (int i = DEGREE - 1; i >= 0; --i) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(series[i]));
    return _mm512_scalef_ps(p, whole);
}

// log2 of positive normal numbers, to one or two units in the last place: x = 2^e m with m in 3/4 .. 3/2, and
// log2 m = 2/ln 2 (t + t^3/3 + t^5/5 + ...) with t = (m - 1) / (m + 1), |t| <= 1/5.
static inline __m512 log2(__m512 x) {
    const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    // The exponent that goes with that m: x / m is a power of two.
    const __m512 e = _mm512_getexp_ps(_mm512_div_ps(x, m));
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), tt = _mm512_mul_ps(t, t);
    __m512 p = _mm512_set1_ps(0.32059890f);  // 2 / (9 ln 2), then / 7, / 5, / 3, / 1
    p = _mm512_fmadd_ps(p, tt, _mm512_set1_ps(0.41219858f));
    p = _mm512_fmadd_ps(p, tt, _mm512_set1_ps(0.57707802f));
    p = _mm512_fmadd_ps(p, tt, _mm512_set1_ps(0.96179669f));
    p = _mm512_fmadd_ps(p, tt, _mm512_set1_ps(2.88539008f));
    return _mm512_fmadd_ps(p, t, e);
}

}  // namespace imagen_fast::avx512_bf16
