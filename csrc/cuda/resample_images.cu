// Compiled without fused products, as the CPU's weights are: a rounding fewer would be another weight.
#include "cuda/resample_images.h"

#include <limits>
#include <stdexcept>

#include "cuda/cuda_error.h"

namespace imagen_fast {

namespace {

struct TapsBlock {
    template <class Work>
    __device__ void each(const Work& work) const {
        work(static_cast<int>(threadIdx.x));
        __syncthreads();
    }
};

__global__ void __launch_bounds__(TAPS_THREADS) find(const DeviceView* __restrict__ views) {
    __shared__ double largest[TAPS_THREADS];
    const DeviceView& view = views[blockIdx.x / 2];
    find_taps(blockIdx.x % 2 ? view.downwards : view.across, largest, TapsBlock{});
}

template <int count>
struct TileBlock {
    std::int32_t (&sums)[count];

    template <class Work>
    __device__ void each(const Work& work) const {
        work(static_cast<int>(threadIdx.x), sums);
        __syncthreads();
    }
};

template <class T, int channels, int values>
__global__ void __launch_bounds__(TILE_THREADS, 3)
    resample(const DeviceView* __restrict__ views, const __grid_constant__ ImageOutput output, int across,
             int tiles) {
    __shared__ Tile<channels> tile;
    std::int32_t sums[Tile<channels>::SUMS];
    const int number = static_cast<int>(blockIdx.x % tiles);
    resample_tile<T, channels, values>(views[blockIdx.x / tiles], output, number % across * TILE_WIDTH,
                                       number / across * TILE_HEIGHT, tile,
                                       TileBlock<Tile<channels>::SUMS>{sums});
}

template <class T, int channels>
void launch(const DeviceView* views, std::int64_t count, const ImageOutput& output, cudaStream_t stream) {
    const int across = static_cast<int>((output.width + TILE_WIDTH - 1) / TILE_WIDTH);
    const int tiles = across * static_cast<int>((output.height + TILE_HEIGHT - 1) / TILE_HEIGHT);
    const auto blocks = static_cast<unsigned>(count * tiles);
    if (stores_together<T, channels>(output))
        resample<T, channels, values_together<T>>
            <<<blocks, TILE_THREADS, 0, stream>>>(views, output, across, tiles);
    else
        resample<T, channels, 1><<<blocks, TILE_THREADS, 0, stream>>>(views, output, across, tiles);
}

template <class T>
void launch(const DeviceView* views, std::int64_t count, const ImageOutput& output, cudaStream_t stream) {
    if (output.channels == 1)
        launch<T, 1>(views, count, output, stream);
    else
        launch<T, 3>(views, count, output, stream);
}

}  // namespace

void resample_images(const DeviceView* views, std::int64_t count, const ImageOutput& output,
                     std::uintptr_t stream) {
    if (count == 0) return;
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    const std::int64_t values = output.channels * output.height * output.width;
    if (values > most || count > most / values)
        throw std::invalid_argument("a batch has fewer than 2^31 values where it is resampled on a GPU");
    const auto queue = reinterpret_cast<cudaStream_t>(stream);
    find<<<static_cast<unsigned>(2 * count), TAPS_THREADS, 0, queue>>>(views);
    check_cuda(cudaGetLastError());
    switch (output.type) {
        case PixelType::uint8:
            launch<std::uint8_t>(views, count, output, queue);
            break;
        case PixelType::float32:
            launch<float>(views, count, output, queue);
            break;
        case PixelType::bfloat16:
            launch<__nv_bfloat16>(views, count, output, queue);
            break;
        case PixelType::float16:
            launch<__half>(views, count, output, queue);
            break;
    }
    check_cuda(cudaGetLastError());
}

}  // namespace imagen_fast
