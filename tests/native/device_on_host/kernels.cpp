// The launches of resample_images.cu and write_marks.cu as loops over blocks and threads.
#include "kernels.h"
#include "cuda/resample_images.h"
#include "cuda/write_marks.h"
#include "runtime.h"

#include <memory>
#include <vector>

namespace device_on_host {

bool backwards = false;

}  // namespace device_on_host

namespace imagen_fast {

namespace {

// In either order the result must be the same: where it is not, a thread has not waited for another.
template <class Work>
void each_thread(int threads, const Work& work) {
    for (int i = 0; i < threads; ++i) work(device_on_host::backwards ? threads - 1 - i : i);
}

struct TapsLoop {
    template <class Work>
    void each(const Work& work) const {
        each_thread(TAPS_THREADS, work);
    }
};

template <int count>
struct TileLoop {
    using Sums = std::int32_t[count];
    Sums* sums;

    template <class Work>
    void each(const Work& work) const {
        each_thread(TILE_THREADS, [&](int thread) { work(thread, sums[thread]); });
    }
};

template <class T, int channels, int values>
void resample(const DeviceView& view, const ImageOutput& output) {
    using Shape = Tile<channels>;
    const auto tile = std::make_unique<Shape>();
    const auto sums = std::make_unique<std::int32_t[][Shape::SUMS]>(TILE_THREADS);
    for (int top = 0; top < output.height; top += TILE_HEIGHT)
        for (int left = 0; left < output.width; left += TILE_WIDTH)
            resample_tile<T, channels, values>(view, output, left, top, *tile,
                                               TileLoop<Shape::SUMS>{sums.get()});
}

template <class T, int channels>
void resample_by_runs(const DeviceView& view, const ImageOutput& output) {
    if (stores_together<T, channels>(output))
        resample<T, channels, values_together<T>>(view, output);
    else
        resample<T, channels, 1>(view, output);
}

template <class T>
void resample_as(const DeviceView& view, const ImageOutput& output) {
    if (output.channels == 1)
        resample_by_runs<T, 1>(view, output);
    else
        resample_by_runs<T, 3>(view, output);
}

void resample_view(const DeviceView& view, const ImageOutput& output) {
    double largest[TAPS_THREADS];
    find_taps(view.across, largest, TapsLoop{});
    find_taps(view.downwards, largest, TapsLoop{});
    switch (output.type) {
        case PixelType::uint8:
            return resample_as<std::uint8_t>(view, output);
        case PixelType::float32:
            return resample_as<float>(view, output);
        case PixelType::bfloat16:
            return resample_as<__nv_bfloat16>(view, output);
        case PixelType::float16:
            return resample_as<__half>(view, output);
    }
}

cudaStream_t stream_of(std::uintptr_t number) { return reinterpret_cast<cudaStream_t>(number); }

}  // namespace

void resample_images(const DeviceView* views, std::int64_t count, const ImageOutput& output,
                     std::uintptr_t stream) {
    device_on_host::enqueue(stream_of(stream), [=] {
        for (std::int64_t i = 0; i < count; ++i) resample_view(views[i], output);
    });
}

void set_marks(const MarkedMemory* memories, std::int64_t count, std::uintptr_t stream) {
    device_on_host::enqueue(stream_of(stream), [=] {
        for (std::int64_t i = 0; i < count; ++i)
            for (int number = 0; number < MARKS; ++number) *mark_place(memories[i], number) = mark(number);
    });
}

void find_marks(const MarkedMemory* memories, std::int64_t count, std::uint8_t* found,
                std::uintptr_t stream) {
    device_on_host::enqueue(stream_of(stream), [=] {
        for (std::int64_t i = 0; i < count; ++i) {
            found[i] = 0;
            for (int number = 0; number < MARKS; ++number)
                found[i] |= *mark_place(memories[i], number) == mark(number);
        }
    });
}

}  // namespace imagen_fast
