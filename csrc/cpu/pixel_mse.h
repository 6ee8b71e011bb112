// The loss of a masked autoencoder straight from the image: patchify, normalise and square error in one.
//
// Row (b, m) of the prediction is held against patch p of image b: p = index[b, m], or m itself without an
// index. Its target is the patch, (row, column, channel) in order, normalised to zero mean and unit unbiased
// variance where asked; its loss is the mean squared error.
#pragma once

#include <cstdint>

#include "common/number_types.h"
#include "cpu/instruction_set.h"

namespace imagen_fast {

struct ImageView {
    const void* data;
    DType dtype;
    std::int64_t channels, height, width;
    std::int64_t batch_stride, channel_stride, row_stride, column_stride;  // in elements
};

struct PixelMse {
    ImageView image;
    const void* prediction;
    DType dtype;
    std::int64_t batch, rows, patch;
    std::int64_t batch_stride, row_stride;  // of the prediction, in elements; its last dimension is dense
    const std::int64_t* index;              // [batch, rows] or null
    const bool* keep;                       // [batch, rows] or null: which rows count
    bool normalise;
    float eps;

    std::int64_t values() const { return patch * patch * image.channels; }
};

// Raises std::invalid_argument where patch, rows or index do not fit the image. The two below rely on it.
void check(const PixelMse& problem);

// loss [batch, rows]: 0 where a row does not count; nothing of such a row is read. Returns the mean over the
// rows that count, 0 where none does: added up in one order, so the same at any number of threads.
double pixel_mse_forward(const PixelMse& problem, float* loss, int threads);

// d_prediction [batch, rows, values], dense, of the mean that the forward returned; 0 where a row does not
// count.
void pixel_mse_backward(const PixelMse& problem, double d_loss, void* d_prediction, int threads);

#define IMAGEN_FAST_DECLARE(set)                                                                        \
    namespace set {                                                                                     \
    /* The patch whose top left value is at `first`, as floats. */                                      \
    void gather_patch(const ImageView& image, std::int64_t first, std::int64_t patch, float* target);   \
    void normalise_patch(float* target, std::int64_t n, float eps);                                     \
    float mean_squared_error(const void* prediction, DType dtype, const float* target, std::int64_t n); \
    void scaled_difference(const void* prediction, DType dtype, const float* target, std::int64_t n,    \
                           float scale, void* out);                                                     \
    }
IMAGEN_FAST_FOR_EACH_INSTRUCTION_SET(IMAGEN_FAST_DECLARE)
#undef IMAGEN_FAST_DECLARE

}  // namespace imagen_fast
