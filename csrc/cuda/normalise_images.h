// Bytes of images to the normalised planes that a model takes: the last step of every decoder.
#pragma once

#include <cstdint>

namespace imagen_fast {

struct NormaliseImages {
    const std::uint8_t* pixels;  // [batch, height, width, channels]
    const bool* flip;            // [batch], mirrors left and right where true; or null
    std::int64_t batch, height, width;
    int channels;                 // 1 to 4
    float mean[4], deviation[4];  // in units of the full range 0..1
};

enum class PlaneType : int { float32 = 0, bfloat16 = 1, float16 = 2 };

// planes [batch, channels, height, width] = (pixels / 255 - mean) / deviation, on the given stream.
// Raises std::runtime_error with CUDA's own words.
void normalise_images(const NormaliseImages& images, void* planes, PlaneType type, std::uintptr_t stream);

// 0 where there is no driver or no device.
int device_count();

}  // namespace imagen_fast
