// Compiled once per instruction set; see instruction_set.h.
#include "cpu/image_output.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstring>

#include "cpu/lanes.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

namespace {

struct Half {
    std::uint16_t bits;
};

// GCC widens bytes one by one where it is not told how.
Floats values(const std::uint8_t* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(read<__m128i>(from)));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(read<long long>(from))));
#else
    typedef std::uint8_t Bytes __attribute__((vector_size(LANES)));
    return __builtin_convertvector(__builtin_convertvector(read<Bytes>(from), Ints), Floats);
#endif
}

template <class T>
void put(T* to, Floats x) {
    store(to, x);
}
void put(Half* to, Floats x) {
#if defined(__AVX512F__)
    const __m256i halves = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(to, &halves, sizeof halves);
#else
    for (int i = 0; i < LANES; ++i) {
        const _Float16 half = static_cast<_Float16>(x[i]);
        std::memcpy(to + i, &half, sizeof half);
    }
#endif
}

static_assert(REPEATED % LANES == 0);

// Of one channel.
struct Same {
    Floats scale, shift;
    Floats of(Floats x, std::int64_t) const { return x * scale + shift; }
};

// Of all, one after another.
struct InTurn {
    const RepeatedChannels& channels;
    Floats of(Floats x, std::int64_t at) const {
        return x * load(channels.scale + at % REPEATED) + load(channels.shift + at % REPEATED);
    }
};

template <class Affine, class T>
void convert(const Affine& affine, const std::uint8_t* from, std::int64_t count, T* to) {
    std::int64_t i = 0;
    for (; i + LANES <= count; i += LANES) put(to + i, affine.of(values(from + i), i));
    if (i == count) return;
    std::uint8_t bytes[LANES] = {};
    std::memcpy(bytes, from + i, static_cast<std::size_t>(count - i));
    T rest[LANES];
    put(rest, affine.of(values(bytes), i));
    std::memcpy(to + i, rest, static_cast<std::size_t>(count - i) * sizeof(T));
}

template <class Affine>
void convert(const Affine&, const std::uint8_t* from, std::int64_t count, std::uint8_t* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count));
}

template <class T>
void put_row_as(const ImageOutput& output, const RepeatedChannels& repeated, std::int64_t y,
                const std::uint8_t* pixels, std::uint8_t* planes) {
    const std::int64_t width = output.width, channels = output.channels, patch = output.patch;
    T* data = static_cast<T*>(output.data);
    const std::int64_t plane = (width + 63) / 64 * 64;
    const bool whole_pixels = patch && channels == 3;
    if (!whole_pixels) {
        std::uint8_t *red = planes, *green = red + plane, *blue = green + plane;
        for (std::int64_t x = 0; x < width; ++x) {
            red[x] = pixels[3 * x];
            green[x] = pixels[3 * x + 1];
            blue[x] = pixels[3 * x + 2];
        }
    }
    if (!patch) {
        for (std::int64_t c = 0; c < channels; ++c)
            convert(Same{all(output.scale[c]), all(output.shift[c])}, planes + c * plane, width,
                    data + (c * output.height + y) * width);
        return;
    }
    const std::uint8_t* from = whole_pixels ? pixels : planes;
    const std::int64_t run = patch * channels, across = width / patch;
    for (std::int64_t p = 0; p < across; ++p)
        convert(InTurn{repeated}, from + p * run, run,
                data + ((y / patch * across + p) * patch + y % patch) * run);
}

}  // namespace

void put_row(const ImageOutput& output, const RepeatedChannels& repeated, std::int64_t y,
             const std::uint8_t* pixels, std::uint8_t* planes) {
    switch (output.type) {
        case PixelType::uint8:
            return put_row_as<std::uint8_t>(output, repeated, y, pixels, planes);
        case PixelType::float32:
            return put_row_as<float>(output, repeated, y, pixels, planes);
        case PixelType::bfloat16:
            return put_row_as<BFloat16>(output, repeated, y, pixels, planes);
        case PixelType::float16:
            return put_row_as<Half>(output, repeated, y, pixels, planes);
    }
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
