// Encoded images to the views of them that a model is fed with: decoded where they are seen, resampled,
// mirrored, normalised, as planes or as patches.
#pragma once

#include <cstdint>
#include <vector>

#include "common/picture.h"
#include "common/resample.h"
#include "common/view.h"
#include "cpu/image_output.h"
#include "cpu/jpeg.h"

namespace imagen_fast {

struct Resampling {
    Filter filter = Filter::bilinear;
    // A JPEG may be decoded at 1/8, 1/4 or 1/2 of its scale where that leaves so many pixels for each one of
    // the view, along both sides; 0: never.
    double least_pixels = 0;
};

// Upright sizes from the headers; {0, 0} where one fails. A JPEG of more pixels does.
Failures picture_sizes(const std::vector<Picture>& pictures, std::vector<JpegSize>& sizes,
                       std::int64_t most_pixels, int threads);

// Picture i goes to `first`, moved by places[i] times `bytes`.
Failures decode_batch(const std::vector<Picture>& pictures, const std::vector<View>& views,
                      const Resampling& resampling, const ImageOutput& first, std::int64_t bytes,
                      const std::int64_t* places, int threads);

}  // namespace imagen_fast
