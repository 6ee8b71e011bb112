"""Kernels of the masked pixel error: one program takes one row of the prediction and its patch."""

import triton
import triton.language as tl


@triton.jit
def difference(
    prediction, image, index, keep, row, rows, across,
    prediction_image, prediction_row, image_image, image_channel, image_line, image_column,
    eps, NORMALISE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """prediction - target of one row, and which of its values count."""
    # Where am I
    sample = row // rows
    patch = row % rows
    if index is not None:
        patch = tl.load(index + row).to(tl.int64)
    value = tl.arange(0, BLOCK)
    counted = value < P * P * C
    if keep is not None:
        counted = counted & (tl.load(keep + row) != 0)

    # Load
    line = (patch // across) * P + value // (P * C)
    column = (patch % across) * P + (value // C) % P
    pixel = sample * image_image + (value % C) * image_channel + line * image_line + column * image_column
    target = tl.load(image + pixel, mask=counted, other=0.0).to(tl.float32)
    predicted = prediction + sample * prediction_image + (row % rows) * prediction_row + value
    predicted = tl.load(predicted, mask=counted, other=0.0).to(tl.float32)

    # Compute
    if NORMALISE:
        mean = tl.sum(target) / (P * P * C)
        target = tl.where(counted, target - mean, 0.0)
        variance = tl.sum(target * target) / (P * P * C - 1)
        target = target / tl.sqrt_rn(variance + eps)
    return predicted - target, counted


@triton.jit
def pixel_mse_forward(
    prediction, image, index, keep, sums, rows, across,
    prediction_image, prediction_row, image_image, image_channel, image_line, image_column,
    eps, NORMALISE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum of squares of each row; 0 where it does not count."""
    row = tl.program_id(0).to(tl.int64)
    error, counted = difference(
        prediction, image, index, keep, row, rows, across,
        prediction_image, prediction_row, image_image, image_channel, image_line, image_column,
        eps, NORMALISE, P, C, BLOCK,
    )  # fmt: skip
    tl.store(sums + row, tl.sum(tl.where(counted, error * error, 0.0)))


@triton.jit
def pixel_mse_backward(
    prediction, image, index, keep, factor, d_prediction, rows, across,
    prediction_image, prediction_row, image_image, image_channel, image_line, image_column,
    eps, NORMALISE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    error, counted = difference(
        prediction, image, index, keep, row, rows, across,
        prediction_image, prediction_row, image_image, image_channel, image_line, image_column,
        eps, NORMALISE, P, C, BLOCK,
    )  # fmt: skip
    gradient = tl.where(counted, error * tl.load(factor), 0.0).to(d_prediction.dtype.element_ty)
    value = tl.arange(0, BLOCK)
    tl.store(d_prediction + row * (P * P * C) + value, gradient, mask=value < P * P * C)
