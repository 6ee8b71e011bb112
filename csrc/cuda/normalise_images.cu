#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/normalise_images.h"

namespace imagen_fast {

namespace {

__device__ void put(float x, float* to) { *to = x; }
__device__ void put(float x, __nv_bfloat16* to) { *to = __float2bfloat16(x); }
__device__ void put(float x, __half* to) { *to = __float2half(x); }

// A thread takes one pixel with all its channels: reads of a warp are dense, and so is each plane's write.
template <class T, int channels>
__global__ void normalise(NormaliseImages images, T* __restrict__ planes) {
    const std::int64_t area = images.height * images.width, pixels = images.batch * area;
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < pixels;
         i += stride) {
        const std::int64_t b = i / area, place = i % area, y = place / images.width, x = place % images.width;
        const std::int64_t from = images.flip && images.flip[b] ? images.width - 1 - x : x;
        const std::uint8_t* pixel = images.pixels + (b * area + y * images.width + from) * channels;
#pragma unroll
        for (int c = 0; c < channels; ++c)
            put((pixel[c] / 255.0f - images.mean[c]) / images.deviation[c],
                planes + (b * channels + c) * area + place);
    }
}

template <class T>
void launch(const NormaliseImages& images, void* planes, cudaStream_t stream) {
    constexpr int threads = 256;
    constexpr std::int64_t most_blocks = 1 << 16;  // past that a thread takes several pixels
    const std::int64_t pixels = images.batch * images.height * images.width;
    const int blocks = static_cast<int>(std::min((pixels + threads - 1) / threads, most_blocks));
    T* out = static_cast<T*>(planes);
    switch (images.channels) {
        case 1:
            normalise<T, 1><<<blocks, threads, 0, stream>>>(images, out);
            break;
        case 2:
            normalise<T, 2><<<blocks, threads, 0, stream>>>(images, out);
            break;
        case 3:
            normalise<T, 3><<<blocks, threads, 0, stream>>>(images, out);
            break;
        default:
            normalise<T, 4><<<blocks, threads, 0, stream>>>(images, out);
    }
}

}  // namespace

void normalise_images(const NormaliseImages& images, void* planes, PlaneType type, std::uintptr_t stream) {
    if (images.channels < 1 || images.channels > 4)
        throw std::invalid_argument("an image has 1 to 4 channels, not " + std::to_string(images.channels));
    if (images.batch * images.height * images.width == 0) return;
    const auto queue = reinterpret_cast<cudaStream_t>(stream);
    switch (type) {
        case PlaneType::float32:
            launch<float>(images, planes, queue);
            break;
        case PlaneType::bfloat16:
            launch<__nv_bfloat16>(images, planes, queue);
            break;
        case PlaneType::float16:
            launch<__half>(images, planes, queue);
            break;
        default:
            throw std::invalid_argument("planes are float32, bfloat16 or float16");
    }
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();  // leaves no error behind for the next call to find
    return 0;
}

}  // namespace imagen_fast
