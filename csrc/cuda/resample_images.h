// Views of decoded images, resampled, mirrored, normalised, as planes or as patches: one launch for all, and
// a small one before it that finds their weights. The arithmetic is the CPU's (common/resample.h), and so is
// every byte; see resample_tile.h.
#pragma once

#include <cstdint>

#include "common/image_output.h"
#include "cuda/resample_tile.h"

namespace imagen_fast {

// `views` is a table of DeviceViews in the device's memory. Raises std::runtime_error with CUDA's own words.
void resample_images(const DeviceView* views, std::int64_t count, const ImageOutput& output,
                     std::uintptr_t stream);

}  // namespace imagen_fast
