// Compiled once per instruction set; see instruction_set.h.
#include <cmath>

#include "cpu/pixel_mse.h"

namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET {

// `channels` is a constant for the usual images, so that the compiler can interleave whole vectors.
template <class T>
static inline void gather(const ImageView& image, std::int64_t first, std::int64_t patch,
                          std::int64_t channels, float* target) {
    for (std::int64_t y = 0; y < patch; ++y) {
        const T* row = static_cast<const T*>(image.data) + first + y * image.row_stride;
        float* out = target + y * patch * channels;
        if (image.column_stride == 1) {
#pragma omp simd
            for (std::int64_t x = 0; x < patch; ++x)
                for (std::int64_t c = 0; c < channels; ++c)
                    out[x * channels + c] = to_float(row[c * image.channel_stride + x]);
        } else {
            for (std::int64_t x = 0; x < patch; ++x)
                for (std::int64_t c = 0; c < channels; ++c)
                    out[x * channels + c] = to_float(row[c * image.channel_stride + x * image.column_stride]);
        }
    }
}

template <class T>
static inline void gather_any(const ImageView& image, std::int64_t first, std::int64_t patch, float* target) {
    if (image.channels == 3) return gather<T>(image, first, patch, 3, target);
    if (image.channels == 1) return gather<T>(image, first, patch, 1, target);
    gather<T>(image, first, patch, image.channels, target);
}

void gather_patch(const ImageView& image, std::int64_t first, std::int64_t patch, float* target) {
    if (image.dtype == DType::float32) return gather_any<float>(image, first, patch, target);
    gather_any<BFloat16>(image, first, patch, target);
}

// Two passes, since the square of a bright, even patch would drown its variance.
void normalise_patch(float* target, std::int64_t n, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) sum += target[i];
    const float mean = sum / static_cast<float>(n);
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < n; ++i) squares += (target[i] - mean) * (target[i] - mean);
    const float deviation = std::sqrt(squares / static_cast<float>(n - 1) + eps);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) target[i] = (target[i] - mean) / deviation;
}

template <class T>
static inline float squared_error(const T* prediction, const float* target, std::int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) {
        const float difference = to_float(prediction[i]) - target[i];
        sum += difference * difference;
    }
    return sum / static_cast<float>(n);
}

float mean_squared_error(const void* prediction, DType dtype, const float* target, std::int64_t n) {
    if (dtype == DType::float32) return squared_error(static_cast<const float*>(prediction), target, n);
    return squared_error(static_cast<const BFloat16*>(prediction), target, n);
}

template <class T>
static inline void difference(const T* prediction, const float* target, std::int64_t n, float scale, T* out) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) store(scale * (to_float(prediction[i]) - target[i]), out + i);
}

void scaled_difference(const void* prediction, DType dtype, const float* target, std::int64_t n, float scale,
                       void* out) {
    if (dtype == DType::float32)
        return difference(static_cast<const float*>(prediction), target, n, scale, static_cast<float*>(out));
    difference(static_cast<const BFloat16*>(prediction), target, n, scale, static_cast<BFloat16*>(out));
}

}  // namespace imagen_fast::IMAGEN_FAST_INSTRUCTION_SET
