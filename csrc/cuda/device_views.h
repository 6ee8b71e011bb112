// The views of a batch as the kernels of resample_images.h read them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/image_output.h"
#include "common/view.h"
#include "cuda/resample_tile.h"

namespace imagen_fast {

// An image in the device's memory, RGB, as it is stored: its rows lie so many bytes apart.
struct DeviceImage {
    const std::uint8_t* pixels;
    std::int64_t pitch;
    JpegSize stored;
    int orientation;
};

class DeviceViews {
public:
    DeviceViews(const ImageOutput& output, Filter filter) : output_(output), filter_(filter) {}

    // Raises std::invalid_argument where the view does not fit the image.
    void add(const DeviceImage& image, const View& view, std::int64_t place);

    std::int64_t count() const { return static_cast<std::int64_t>(views_.size()); }
    // Of the device's memory, for the weights of all of them.
    std::int64_t bytes() const { return bytes_; }
    // The table, for weights that begin there, at a multiple of 16 bytes.
    const std::vector<DeviceView>& with_weights_at(std::uint8_t* memory);

private:
    void add_axis(DeviceTaps& taps, std::int64_t inputs, std::int64_t resized, std::int64_t begin,
                  std::int64_t outputs, bool mirrored);

    ImageOutput output_;
    Filter filter_;
    std::vector<DeviceView> views_;
    std::vector<std::int64_t> offsets_;  // into the memory: of each view across, then downwards
    std::int64_t bytes_ = 0;
};

}  // namespace imagen_fast
