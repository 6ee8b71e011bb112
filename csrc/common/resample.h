// The arithmetic of resampling with antialiasing, for host and device: which inputs an output is made of,
// and their weights.
//
// Source: Pillow's `resize` (src/libImaging/Resample.c). The weights of an output are a kernel as wide as the
// step between outputs, or one input where that is wider, at the distances of the inputs' centres, and add up
// to one. Rows come first, rounded to 8 bits, then columns, as in Pillow up to version 12 and in torchvision;
// Pillow 13 turns that round where the height shrinks much more than the width. Pillow's weights have 22
// binary places; ours have as many as fit 16 bits, so that a processor multiplies pairs of them: a result
// differs where it lies next to the middle between two integers.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define IMAGEN_FAST_HOST_DEVICE __host__ __device__
#else
#define IMAGEN_FAST_HOST_DEVICE
#endif

namespace imagen_fast {

enum class Filter : int { bilinear = 0, bicubic = 1 };

// One direction: `outputs` equal steps over [from, to) of `inputs` values, none outside of which is seen.
struct Axis {
    Filter filter;
    double from, to;
    std::int64_t inputs, outputs;
};

// Inputs first .. first + count.
struct Reach {
    std::int64_t first, count;
};

IMAGEN_FAST_HOST_DEVICE inline double support(Filter filter) { return filter == Filter::bilinear ? 1 : 2; }

IMAGEN_FAST_HOST_DEVICE inline double kernel(Filter filter, double x) {
    x = x < 0 ? -x : x;
    if (filter == Filter::bilinear) return x < 1 ? 1 - x : 0;
    constexpr double a = -0.5;  // Keys 1981
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

IMAGEN_FAST_HOST_DEVICE inline double step_of(const Axis& axis) {
    return (axis.to - axis.from) / axis.outputs;
}

IMAGEN_FAST_HOST_DEVICE inline double width_of(const Axis& axis) {
    const double step = step_of(axis);
    return step < 1 ? 1 : step;
}

IMAGEN_FAST_HOST_DEVICE inline double centre_of(const Axis& axis, std::int64_t output) {
    return axis.from + (output + 0.5) * step_of(axis);
}

IMAGEN_FAST_HOST_DEVICE inline Reach reach_of(const Axis& axis, std::int64_t output) {
    const double centre = centre_of(axis, output), half = support(axis.filter) * width_of(axis);
    // As in C, towards zero: only what is below zero rounds up, and that is cut off.
    std::int64_t first = static_cast<std::int64_t>(centre - half + 0.5);
    std::int64_t last = static_cast<std::int64_t>(centre + half + 0.5);
    first = first < 0 ? 0 : first;
    last = last > axis.inputs ? axis.inputs : last;
    return {first, last - first};
}

// Not yet divided by their sum.
IMAGEN_FAST_HOST_DEVICE inline double weight_of(const Axis& axis, std::int64_t output, std::int64_t input) {
    return kernel(axis.filter, (input - centre_of(axis, output) + 0.5) / width_of(axis));
}

// The most inputs of an output.
IMAGEN_FAST_HOST_DEVICE inline std::int64_t most_inputs(const Axis& axis) {
    const double half = support(axis.filter) * width_of(axis);
    const std::int64_t whole = static_cast<std::int64_t>(half);
    return (whole < half ? whole + 1 : whole) * 2 + 1;
}

// Weights are kept so many together: of each output a whole number of these, zeros at its end.
constexpr std::int64_t WEIGHTS_TOGETHER = 4;

IMAGEN_FAST_HOST_DEVICE inline std::int64_t kept_weights(const Axis& axis) {
    const std::int64_t most = most_inputs(axis), fewer = most < axis.inputs ? most : axis.inputs;
    return (fewer + WEIGHTS_TOGETHER - 1) / WEIGHTS_TOGETHER * WEIGHTS_TOGETHER;
}

// How many binary places the weights get of which the largest, of any output, is this: no more than 22, so
// that a sum of products stays below 2^31; and room for what is added to the greatest weight.
IMAGEN_FAST_HOST_DEVICE inline int binary_places(double largest, std::int64_t kept) {
    const double most = 32767.0 - static_cast<double>(kept);
    int bits = 14;
    while (bits < 22 && ldexp(largest, bits + 1) < most) ++bits;
    return bits;
}

// The weights exact(0) .. exact(count - 1), which add up to 1, in units of 2^-bits, `stride` apart.
template <class Exact>
IMAGEN_FAST_HOST_DEVICE inline void set_weights(std::int64_t count, int bits, Exact exact,
                                                std::int16_t* weights, std::int64_t stride) {
    std::int64_t sum = 0, greatest = 0;
    const double scale = 1 << bits;
    for (std::int64_t k = 0; k < count; ++k) {
        const auto weight = static_cast<std::int16_t>(lrint(exact(k) * scale));
        weights[k * stride] = weight;
        sum += weight;
        if (weight > weights[greatest * stride]) greatest = k;
    }
    // What is of one colour stays so.
    std::int16_t& most = weights[greatest * stride];
    most = static_cast<std::int16_t>(most + (1 << bits) - sum);
}

// Static, as in number_types.h: kernel files have it.
IMAGEN_FAST_HOST_DEVICE static inline std::uint8_t clipped(std::int32_t sum, int bits) {
    const std::int32_t level = (sum + (1 << (bits - 1))) >> bits;
    return static_cast<std::uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
}

// As Pillow makes gray of colours.
IMAGEN_FAST_HOST_DEVICE inline std::uint8_t luminance(const std::uint8_t* rgb) {
    return static_cast<std::uint8_t>((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

}  // namespace imagen_fast
