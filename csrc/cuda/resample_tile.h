// What one block of threads does to resample views: host and device. On a processor the same lines run under
// a loop over the threads, and are compared there with the CPU's decoder byte by byte.
//
// What it costs on an H100, estimated: of a 500x375 photograph a view of 224x224 reads about 0.3 MB and
// writes 0.3 MB in bf16, 0.2 us of its memory's time, and takes some 1.5 million products of a byte and a
// weight, 0.4 us of its instructions: little beside the decoding, of which a GPU does some 10,000 a second.
// So it is kept plain: neither rows nor columns go through memory between the two passes, and one launch
// makes the whole batch, but the inputs come through the first cache byte by byte, without staging.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/image_output.h"
#include "common/resample.h"

namespace imagen_fast {

struct Span {
    std::int32_t first, count;
};

// What the outputs of one axis of a view are made of. The pointers are to the device's memory.
struct DeviceTaps {
    Axis axis;
    std::int64_t begin, outputs;
    bool mirrored;  // the last comes first
    // Of each output: inputs, and weights in units of 2^-bits; those of neighbouring outputs lie side by
    // side, [kept_weights(axis), outputs], as the threads of a warp read them.
    Span* spans;
    std::int16_t* weights;
    std::int32_t* bits;
};

struct DeviceView {
    const std::uint8_t* origin;  // the pixel at the left and top of the box, upright
    std::int64_t right, down;    // bytes from a pixel to those beside and below it: so a turn costs nothing
    DeviceTaps across, downwards;
    std::int64_t place;  // the number of the image in the output
};

constexpr int TAPS_THREADS = 128;

// A block's threads find the weights of an axis. `largest` is shared, one of each thread.
template <class Threads>
IMAGEN_FAST_HOST_DEVICE void find_taps(const DeviceTaps& taps, double* largest, const Threads& threads) {
    const auto number = [&taps](std::int64_t i) {
        return taps.begin + (taps.mirrored ? taps.outputs - 1 - i : i);
    };
    // In the order in which the CPU adds them up.
    const auto sum_of = [&taps](std::int64_t output, const Reach& reach) {
        double sum = 0;
        for (std::int64_t k = 0; k < reach.count; ++k) sum += weight_of(taps.axis, output, reach.first + k);
        return sum;
    };
    threads.each([&](int thread) {
        double most = 0;
        for (std::int64_t i = thread; i < taps.outputs; i += TAPS_THREADS) {
            const std::int64_t output = number(i);
            const Reach reach = reach_of(taps.axis, output);
            const double sum = sum_of(output, reach);
            for (std::int64_t k = 0; k < reach.count; ++k) {
                const double weight = fabs(weight_of(taps.axis, output, reach.first + k) / sum);
                most = weight > most ? weight : most;
            }
            taps.spans[i] = {static_cast<std::int32_t>(reach.first), static_cast<std::int32_t>(reach.count)};
        }
        largest[thread] = most;
    });
    threads.each([&](int thread) {
        double most = 0;
        for (int i = 0; i < TAPS_THREADS; ++i) most = largest[i] > most ? largest[i] : most;
        const int bits = binary_places(most, kept_weights(taps.axis));
        if (thread == 0) *taps.bits = bits;
        for (std::int64_t i = thread; i < taps.outputs; i += TAPS_THREADS) {
            const std::int64_t output = number(i);
            const Reach reach = reach_of(taps.axis, output);
            const double sum = sum_of(output, reach);
            const auto exact = [&](std::int64_t k) {
                return weight_of(taps.axis, output, reach.first + k) / sum;
            };
            set_weights(reach.count, bits, exact, taps.weights + i, taps.outputs);
        }
    });
}

constexpr int TILE_WIDTH = 32, TILE_HEIGHT = 16, TILE_THREADS = 384;
// So many rows of inputs are resampled along x before they are added to the columns. A view that shrinks to
// two fifths needs no more for a tile; one that shrinks further takes several turns in the same memory.
constexpr int TILE_ROWS = 48;

template <int channels>
struct Tile {
    static constexpr int VALUES = TILE_WIDTH * channels;            // of a row
    static constexpr int APART = TILE_THREADS / VALUES;             // rows between those of one thread
    static constexpr int SUMS = (TILE_HEIGHT + APART - 1) / APART;  // the most of a thread
    std::uint8_t rows[TILE_ROWS][VALUES];
    std::uint8_t pixels[TILE_HEIGHT][VALUES];
};

IMAGEN_FAST_HOST_DEVICE inline void put(float x, float* to) { *to = x; }
IMAGEN_FAST_HOST_DEVICE inline void put(float x, __nv_bfloat16* to) { *to = __float2bfloat16(x); }
IMAGEN_FAST_HOST_DEVICE inline void put(float x, __half* to) { *to = __float2half(x); }

IMAGEN_FAST_HOST_DEVICE inline int lesser(std::int64_t a, std::int64_t b) {
    return static_cast<int>(a < b ? a : b);
}

// One row of inputs, `from` its pixel at the beginning of the span, to one output.
template <int channels>
IMAGEN_FAST_HOST_DEVICE inline void resample_pixel(const std::uint8_t* from, std::int64_t right,
                                                   std::int32_t count, const std::int16_t* weights,
                                                   std::int64_t apart, int bits, std::uint8_t* to) {
    std::int32_t sums[channels] = {};
    for (std::int32_t k = 0; k < count; ++k, from += right, weights += apart) {
        if (channels == 1)
            sums[0] += *weights * luminance(from);
        else
            for (int c = 0; c < channels; ++c) sums[c] += *weights * from[c];
    }
    for (int c = 0; c < channels; ++c) to[c] = clipped(sums[c], bits);
}

// So many values are stored by an instruction where that can be: where those that lie side by side, in a
// row of a plane or of a patch, are a whole number of them.
template <class T>
constexpr int values_together = 16 / sizeof(T);

template <class T, int channels>
bool stores_together(const ImageOutput& output) {
    const std::int64_t run = output.patch ? output.patch * channels : output.width;
    return run % values_together<T> == 0 && reinterpret_cast<std::uintptr_t>(output.data) % 16 == 0;
}

// The finished pixels of a tile to where they go, `values` by an instruction.
template <class T, int channels, int values>
IMAGEN_FAST_HOST_DEVICE inline void store_tile(const Tile<channels>& tile, const ImageOutput& output,
                                               std::int64_t place, int left, int top, int width, int height,
                                               int thread) {
    struct alignas(values * sizeof(T)) Together {
        T value[values];
    };
    // An image has fewer than 2^31 values.
    const int patch = static_cast<int>(output.patch), run = patch * channels;
    const int wide = static_cast<int>(output.width), high = static_cast<int>(output.height);
    T* data = static_cast<T*>(output.data) + place * channels * high * wide;
    const int planes = patch ? 1 : channels;
    const int units = (patch ? width * channels : width) / values;  // of a row
    for (int i = thread; i < planes * height * units; i += TILE_THREADS) {
        const int at = i % units * values, y = i / units % height, plane = i / units / height;
        const int row = top + y;
        T* to;
        if (patch) {
            const int from = left * channels + at;
            to =
                data + ((row / patch * (wide / patch) + from / run) * patch + row % patch) * run + from % run;
        } else {
            to = data + (plane * high + row) * wide + left + at;
        }
        Together made;
        for (int v = 0; v < values; ++v) {
            const int c = patch ? (at + v) % channels : plane;
            const std::uint8_t level = tile.pixels[y][patch ? at + v : (at + v) * channels + plane];
            if constexpr (sizeof(T) == 1)
                made.value[v] = level;
            else
                put(fmaf(level, output.scale[c], output.shift[c]), made.value + v);
        }
        *reinterpret_cast<Together*>(to) = made;
    }
}

// The tile of a view whose left and top are these: rows first, rounded to bytes, then columns. `threads`
// calls what it is given for each thread with sums of its own, and waits for all of them.
template <class T, int channels, int values, class Threads>
IMAGEN_FAST_HOST_DEVICE void resample_tile(const DeviceView& view, const ImageOutput& output, int left,
                                           int top, Tile<channels>& tile, const Threads& threads) {
    using Shape = Tile<channels>;
    const DeviceTaps &across = view.across, &downwards = view.downwards;
    const int width = lesser(TILE_WIDTH, output.width - left);
    const int height = lesser(TILE_HEIGHT, output.height - top);
    const Span last = downwards.spans[top + height - 1];
    const std::int32_t end = last.first + last.count;
    threads.each([&](int, auto& sums) {
        for (int i = 0; i < Shape::SUMS; ++i) sums[i] = 0;
    });
    for (std::int32_t begin = downwards.spans[top].first; begin < end; begin += TILE_ROWS) {
        const int rows = lesser(TILE_ROWS, end - begin);
        threads.each([&](int thread, auto&) {
            const int x = thread % TILE_WIDTH;
            if (x >= width) return;
            const Span span = across.spans[left + x];
            const std::uint8_t* from = view.origin + span.first * view.right;
            for (int row = thread / TILE_WIDTH; row < rows; row += TILE_THREADS / TILE_WIDTH)
                resample_pixel<channels>(from + (begin + row) * view.down, view.right, span.count,
                                         across.weights + left + x, across.outputs, *across.bits,
                                         tile.rows[row] + x * channels);
        });
        threads.each([&](int thread, auto& sums) {
            const int value = thread % Shape::VALUES;
            for (int i = 0; i < Shape::SUMS; ++i) {
                const int y = thread / Shape::VALUES + i * Shape::APART;
                if (y >= height) continue;
                const Span span = downwards.spans[top + y];
                const std::int16_t* weights = downwards.weights + top + y;
                const int to = lesser(span.first + span.count - begin, rows);
                for (int row = span.first > begin ? span.first - begin : 0; row < to; ++row)
                    sums[i] +=
                        weights[(begin + row - span.first) * downwards.outputs] * tile.rows[row][value];
            }
        });
    }
    threads.each([&](int thread, auto& sums) {
        const int value = thread % Shape::VALUES;
        for (int i = 0; i < Shape::SUMS; ++i) {
            const int y = thread / Shape::VALUES + i * Shape::APART;
            if (y < height) tile.pixels[y][value] = clipped(sums[i], *downwards.bits);
        }
    });
    threads.each([&](int thread, auto&) {
        store_tile<T, channels, values>(tile, output, view.place, left, top, width, height, thread);
    });
}

}  // namespace imagen_fast
