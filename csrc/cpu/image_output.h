// Rows of an image to where they go: see common/image_output.h.
#pragma once

#include <cstdint>

#include "common/image_output.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

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
