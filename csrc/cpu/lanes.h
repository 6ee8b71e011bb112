// Numbers side by side, as many as a register of this instruction set holds: what the attention kernels need
// beside products. The compiler's vector types do the arithmetic, so that one text serves every processor.
//
// Included by files that are compiled once per instruction set, each into a namespace of its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "common/number_types.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef std::int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef std::uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * LANES)));

static inline Floats all(float x) { return Floats{} + x; }
// b where either is no number.
static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

template <class To, class From>
static inline To read(const From* from) {
    To value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

static inline Floats load(const float* from) { return read<Floats>(from); }
static inline Floats load(const BFloat16* from) {
#if defined(__AVX512F__)
    // GCC makes five instructions of the conversion below.
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#else
    return (Floats)(__builtin_convertvector(read<Halves>(from), Bits) << 16);
#endif
}
static inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }
static inline void store(BFloat16* to, Floats x) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    // To the nearest, ties to even; a NaN stays one.
    const Bits bits = (Bits)x, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Halves halves = __builtin_convertvector(x == x ? rounded : Bits{} + 0x7fc0u, Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

static inline float total(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sums[LANES];
    store(sums, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) sums[i] += sums[half + i];
    return sums[0];
#endif
}

// The first n lanes, where that may be fewer than all; the others are zero, or stay as they are in memory.
#if defined(__AVX512F__)
static inline __mmask16 first_lanes(std::int64_t n) {
    return static_cast<__mmask16>(n >= LANES ? 0xffff : (1u << (n > 0 ? n : 0)) - 1);
}
static inline Floats load(const float* from, std::int64_t n) {
    return (Floats)_mm512_maskz_loadu_ps(first_lanes(n), from);
}
static inline Floats load(const BFloat16* from, std::int64_t n) {
    const __m256i halves = _mm256_maskz_loadu_epi16(first_lanes(n), from);
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
}
static inline Floats first_of(Floats x, std::int64_t n) {
    return (Floats)_mm512_maskz_mov_ps(first_lanes(n), (__m512)x);
}
static inline void store(float* to, Floats x, std::int64_t n) {
    _mm512_mask_storeu_ps(to, first_lanes(n), (__m512)x);
}
static inline void store(BFloat16* to, Floats x, std::int64_t n) {
    BFloat16 halves[LANES];
    store(halves, x);
    _mm256_mask_storeu_epi16(to, first_lanes(n), _mm256_loadu_si256(reinterpret_cast<__m256i*>(halves)));
}
#else
template <class T>
static inline Floats load(const T* from, std::int64_t n) {
    if (n >= LANES) return load(from);
    T some[LANES];
    for (int i = 0; i < LANES; ++i) some[i] = i < n ? from[i] : T{};
    return load(some);
}
template <class T>
static inline void store(T* to, Floats x, std::int64_t n) {
    if (n >= LANES) return store(to, x);
    T some[LANES];
    store(some, x);
    for (int i = 0; i < LANES; ++i)
        if (i < n) to[i] = some[i];
}
static inline Floats first_of(Floats x, std::int64_t n) {
    float some[LANES];
    store(some, x);
    return load(some, n);
}
#endif

// All lanes, known to the compiler: no masks.
using AllLanes = std::integral_constant<std::int64_t, LANES>;
template <class T>
static inline Floats load(const T* from, AllLanes) {
    return load(from);
}
template <class T>
static inline void store(T* to, Floats x, AllLanes) {
    store(to, x);
}
static inline Floats first_of(Floats x, AllLanes) { return x; }

// Calls work(i, n) for the n lanes from i on, AllLanes where there are so many, until there are `count`.
template <class Work>
static inline void for_lanes(std::int64_t count, Work work) {
    std::int64_t i = 0;
    for (; i + LANES <= count; i += LANES) work(i, AllLanes{});
    if (i < count) work(i, count - i);
}

// 2^x for x at most 127; what would be below 2^-125 is 0 or about that. DEGREE of the Taylor series of 2^f
// for |f| <= 1/2: 7 leaves an error below a unit in the last place of a float, 5 leaves 2e-6, 4 leaves
// 4e-5, a fiftieth of the rounding to bfloat16.
template <int DEGREE>
static inline Floats exp2(Floats x) {
    constexpr float series[] = {1.0f,          6.9314718e-1f, 2.4022651e-1f, 5.5504109e-2f,
                                9.6181291e-3f, 1.3333558e-3f, 1.5403530e-4f, 1.5252734e-5f};
#if defined(__AVX512F__)
    const Floats whole =
        (Floats)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
    x = larger(all(-125.0f), x);
    const Floats shifted = x + rounder, whole = shifted - rounder;
#endif
    const Floats f = x - whole;
    Floats p = all(series[DEGREE]);
    for (int i = DEGREE - 1; i >= 0; --i) p = p * f + series[i];
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    // The integer lies in the low bits of `shifted`; moved up it is added to the exponent.
    return (Floats)((Bits)p + ((Bits)shifted << 23));
#endif
}

// log2 of positive normal numbers, to one or two units in the last place: x = 2^e m with m in 3/4 .. 3/2, and
// log2 m = 2/ln 2 (t + t^3/3 + t^5/5 + ...) with t = (m - 1) / (m + 1), |t| <= 1/5.
static inline Floats log2(Floats x) {
    const Ints e = ((Ints)x - 0x3f400000) >> 23;
    const Floats m = (Floats)((Ints)x - (e << 23));
    const Floats t = (m - 1.0f) / (m + 1.0f), tt = t * t;
    Floats p = all(0.32059890f);  // 2 / (9 ln 2), then / 7, / 5, / 3, / 1
    p = p * tt + 0.41219858f;
    p = p * tt + 0.57707802f;
    p = p * tt + 0.96179669f;
    p = p * tt + 2.88539008f;
    return p * t + __builtin_convertvector(e, Floats);
}

// a[0] b[0] a[1] b[1] ..., from the first half of both, or with HALF = 1 from the second.
template <int HALF, int... I>
static inline Floats interleaved(Floats a, Floats b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (HALF * LANES / 2 + I / 2 + (I % 2) * LANES)...);
#else
    return __builtin_shuffle(a, b, Ints{(HALF * LANES / 2 + I / 2 + (I % 2) * LANES)...});
#endif
}

// A square of lanes, turned: interleaving the halves rotates the bits of an entry's (row, lane) by one.
static inline void transpose(Floats (&row)[LANES]) {
    constexpr std::make_integer_sequence<int, LANES> each;
    for (int round = 1; round < LANES; round *= 2) {
        Floats next[LANES];
        for (int i = 0; i < LANES / 2; ++i) {
            next[2 * i] = interleaved<0>(row[i], row[LANES / 2 + i], each);
            next[2 * i + 1] = interleaved<1>(row[i], row[LANES / 2 + i], each);
        }
        for (int i = 0; i < LANES; ++i) row[i] = next[i];
    }
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
