// Where the rows of an image go: normalised, as planes or as patch tokens, in the type of the tensor.
#pragma once

#include <cstdint>

#include "cpu/instruction_set.h"

namespace imagen_fast {

enum class PixelType : int { uint8 = 0, float32 = 1, bfloat16 = 2, float16 = 3 };

std::int64_t size_of(PixelType type);

struct ImageOutput {
    void* data;  // [channels, height, width], or with a patch size [tokens, patch * patch * channels]
    PixelType type;
    std::int64_t channels, height, width;  // 1 or 3 channels; of one it is the first
    std::int64_t patch;                    // 0: planes
    // What becomes of a byte of each channel: byte * scale + shift. Bytes stay what they are.
    float scale[3], shift[3];
};

// The channels again and again, as they follow one another in a patch: whole registers, whatever their size.
constexpr std::int64_t REPEATED = 3 * 16;
struct RepeatedChannels {
    explicit RepeatedChannels(const ImageOutput& output) {
        for (std::int64_t i = 0; i < REPEATED; ++i) {
            scale[i] = output.scale[i % output.channels];
            shift[i] = output.shift[i % output.channels];
        }
    }
    float scale[REPEATED], shift[REPEATED];
};

#define IMAGEN_FAST_DECLARE(set)                                                                            \
    namespace set {                                                                                         \
    /* Row y, of RGB pixels. `planes` has room for 3 rows of `width` bytes, each up to a whole number of */ \
    /* 64. */                                                                                               \
    void put_row(const ImageOutput& output, const RepeatedChannels& repeated, std::int64_t y,               \
                 const std::uint8_t* pixels, std::uint8_t* planes);                                         \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
