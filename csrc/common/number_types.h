// The number types that cross the border from Python, and bfloat16 arithmetic.
//
// The helpers are `static`, so every file has its own copy: kernel files are compiled once per
// instruction set, and a copy shared by the linker could hold instructions that this processor lacks.
#pragma once

#include <cstdint>
#include <cstring>

namespace imagen_fast {

enum class DType : int { float32 = 0, bfloat16 = 1 };

struct BFloat16 {
    std::uint16_t bits;
};

static inline float to_float(float x) { return x; }

static inline float to_float(BFloat16 x) {
    const std::uint32_t wide = static_cast<std::uint32_t>(x.bits) << 16;
    float f;
    std::memcpy(&f, &wide, sizeof f);
    return f;
}

static inline void store(float x, float* to) { *to = x; }

// Rounds to the nearest, ties to even; a NaN stays a NaN.
static inline void store(float x, BFloat16* to) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to->bits = static_cast<std::uint16_t>(x == x ? rounded : 0x7fc0u);
}

static inline std::int64_t size_of(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

}  // namespace imagen_fast
