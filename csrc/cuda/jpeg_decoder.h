// JPEGs to RGB pixels in the device's memory, by nvJPEG: on the chip's JPEG engine what that takes, the rest
// by its kernels, with the entropy decoding in threads of ours.
//
// The whole image is decoded, not the region that is seen: the engine reads the whole file anyway, and at a
// region's border the interpolated colours would be others.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/nvjpeg_library.h"
#include "cuda/write_marks.h"

namespace imagen_fast {

struct JpegTask {
    const std::uint8_t* data;
    std::size_t size;
    std::uint8_t* pixels;  // on the device, at a multiple of 4 bytes, with room for 3 more
    std::int64_t width, height;
    std::string failure;  // after `decode`; empty: none
};

// For the device that is current where it is made. One call at a time; several decoders at once.
class JpegDecoder {
public:
    explicit JpegDecoder(const NvjpegLibrary& library);
    ~JpegDecoder();

    bool has_engine() const { return engine_ != nullptr; }

    // Nothing may use the memory of the pixels any more: the engine heeds no stream (torchvision #9606). When
    // it returns the pixels are there. Raises std::runtime_error with CUDA's own words where the device
    // fails.
    void decode(std::vector<JpegTask>& tasks, int threads);

private:
    struct Worker;
    class Lease;

    bool engine_takes(const JpegTask& task) const;
    // Those that it left undone.
    std::vector<JpegTask*> decode_on_engine(const std::vector<JpegTask*>& tasks);
    void decode_by_kernels(const std::vector<JpegTask*>& tasks, int threads);

    const NvjpegLibrary& nvjpeg_;
    int device_ = 0;
    DeviceStream stream_;
    NvjpegLibrary::Status status_ = 0;
    NvjpegLibrary::Owned<NvjpegLibrary::Handle> kernels_, engine_;  // null: the chip has no engine
    NvjpegLibrary::Owned<NvjpegLibrary::State> engine_state_;
    NvjpegLibrary::Owned<NvjpegLibrary::Stream> engine_header_;
    DeviceMemory marked_, found_;
    PinnedMemory tables_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Worker>> idle_;
};

}  // namespace imagen_fast
