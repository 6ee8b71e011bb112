// What test_view_decoder.py calls. Failures are texts of WORDS bytes each.
#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cuda/view_decoder.h"
#include "kernels.h"
#include "runtime.h"

using imagen_fast::ViewDecoder;

namespace {

constexpr std::size_t WORDS = 200;

void say(const std::string& words, char* to) {
    std::memset(to, 0, WORDS);
    std::memcpy(to, words.data(), std::min(words.size(), WORDS - 1));
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void* make_decoder(const char* nvjpeg, char* failure) {
    try {
        return new ViewDecoder(nvjpeg);
    } catch (const std::exception& error) {
        say(error.what(), failure);
        return nullptr;
    }
}
EXPORTED void drop_decoder(void* decoder) { delete static_cast<ViewDecoder*>(decoder); }
EXPORTED int has_engine(const void* decoder) {
    return static_cast<const ViewDecoder*>(decoder)->has_engine();
}

// Of each image: its address, bytes, width and height (both 0: a JPEG); of each view the nine numbers.
EXPORTED void decode_views(void* decoder, std::int64_t count, const std::int64_t* images,
                           const std::int64_t* views, const std::int64_t* places, int filter, void* out,
                           int type, const std::int64_t* shape, std::int64_t patch, const float* scale,
                           const float* shift, int threads, std::uintptr_t stream, char* failures) {
    std::vector<imagen_fast::Picture> pictures;
    std::vector<imagen_fast::View> wanted;
    for (std::int64_t i = 0; i < count; ++i, images += 4, views += 9) {
        pictures.push_back({reinterpret_cast<const std::uint8_t*>(images[0]),
                            static_cast<std::size_t>(images[1]), images[2], images[3]});
        wanted.push_back({{views[0], views[1], views[2], views[3]},
                          views[4],
                          views[5],
                          views[6],
                          views[7],
                          views[8] != 0});
    }
    imagen_fast::ImageOutput output{
        out, static_cast<imagen_fast::PixelType>(type), shape[0], shape[1], shape[2], patch, {}, {}};
    std::copy_n(scale, 3, output.scale);
    std::copy_n(shift, 3, output.shift);
    const auto found = static_cast<ViewDecoder*>(decoder)->decode(
        pictures, wanted, static_cast<imagen_fast::Filter>(filter), output, places, threads, stream);
    for (std::size_t i = 0; i < found.size(); ++i) say(found[i], failures + i * WORDS);
}

EXPORTED std::uintptr_t make_stream() {
    cudaStream_t stream;
    cudaStreamCreateWithFlags(&stream, 0);
    return reinterpret_cast<std::uintptr_t>(stream);
}
EXPORTED void wait_for(std::uintptr_t stream) {
    cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream));
}
EXPORTED void set_backwards(int on) { device_on_host::backwards = on; }

EXPORTED void get_counts(std::int64_t* to) {
    const device_on_host::Counts c = device_on_host::counts();
    to[0] = c.allocations, to[1] = c.memories, to[2] = c.streams, to[3] = c.events;
}
