// Where the pixels of an image go: normalised, as planes or as patch tokens, in the type of the tensor.
#pragma once

#include <cstdint>

namespace imagen_fast {

enum class PixelType : int { uint8 = 0, float32 = 1, bfloat16 = 2, float16 = 3 };

inline std::int64_t size_of(PixelType type) {
    return type == PixelType::uint8 ? 1 : type == PixelType::float32 ? 4 : 2;
}

struct ImageOutput {
    void* data;  // [channels, height, width], or with a patch size [tokens, patch * patch * channels]
    PixelType type;
    std::int64_t channels, height, width;  // 1 or 3 channels; of one it is the first
    std::int64_t patch;                    // 0: planes
    // What becomes of a byte of each channel: byte * scale + shift. Bytes stay what they are.
    float scale[3], shift[3];
};

}  // namespace imagen_fast
