// Encoded images to views of them on the device: the counterpart of cpu/decode_batch.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/image_output.h"
#include "common/picture.h"
#include "common/view.h"
#include "cuda/device_memory.h"
#include "cuda/device_views.h"
#include "cuda/jpeg_decoder.h"

namespace imagen_fast {

// For the device that is current where it is made. One call at a time; several decoders at once.
class ViewDecoder {
public:
    // `nvjpeg`: the library's path. Raises std::runtime_error where it cannot be used.
    explicit ViewDecoder(const std::string& nvjpeg);

    bool has_engine() const { return jpegs_.has_engine(); }

    // Picture i goes to the place number places[i] of `output`, once the stream has come to it. Decoded
    // images have memory of their own, so that nobody need wait for the stream's earlier work but for that
    // of the call before the last. Raises std::runtime_error with CUDA's own words where the device fails.
    Failures decode(const std::vector<Picture>& pictures, const std::vector<View>& views, Filter filter,
                    const ImageOutput& output, const std::int64_t* places, int threads,
                    std::uintptr_t stream);

private:
    // What the kernels of a call read, until they are done.
    struct Slot {
        DeviceMemory pixels, views, weights;
        PinnedMemory table;
        DeviceEvent done;  // last: it is waited for before the memory goes
    };
    struct Image;  // a picture and where its pixels go

    // Into the memory of the slot.
    void bring(Slot& slot, std::vector<Image>& images, int threads);
    void resample(Slot& slot, DeviceViews& views, const ImageOutput& output, std::uintptr_t stream);

    JpegDecoder jpegs_;
    DeviceStream uploads_;
    std::array<Slot, 2> slots_;
    std::size_t turn_ = 0;
};

}  // namespace imagen_fast
