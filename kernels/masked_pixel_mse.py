"""Squared error of predicted patches, straight from the image.

    loss = mean over counted rows r of mean over a patch's values e of (prediction[r, e] - target[r, e])^2

target is the patch's pixels in the order (row, column, channel) of MAE (He et al., 2021, arXiv:2111.06377),
if asked for normalised by the patch's own mean and unbiased variance: (x - mean) / sqrt(variance + eps).

prediction is ``[B, M, P*P*C]``, image ``[B, C, H, W]``, patches in raster order. Row m predicts patch
``index[b, m]``; or patch m, and counts where ``keep[b, m]``; or, with neither, patch m always. All
arithmetic is fp32: one program holds one patch in registers and takes mean and variance in two passes.

Bytes: counted patches of the image and of the prediction once forward, the same plus the gradient
backward; the patchified target never exists. About ten operations a value.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels import launch
from imagen_fast.operators import registered

if launch.INSTALLED:
    from imagen_fast.kernels.masked_pixel_mse_rows import pixel_mse_backward, pixel_mse_forward


def _arguments(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> dict[str, Any]:
    rows, values, channels = prediction.shape[1], int(prediction.shape[2]), int(image.shape[1])
    side = isqrt(values // channels)
    image_stride, channel_stride, line_stride, column_stride = image.stride()
    return {
        "prediction": prediction,
        "image": image,
        "index": None if index is None else index.contiguous(),
        "keep": None if keep is None else keep.contiguous(),
        "rows": rows,
        "across": image.shape[3] // side,
        "prediction_image": prediction.stride(0),
        "prediction_row": prediction.stride(1),
        "image_image": image_stride,
        "image_channel": channel_stride,
        "image_line": line_stride,
        "image_column": column_stride,
        "eps": eps,
        "NORMALISE": normalise,
        "P": side,
        "C": channels,
        "BLOCK": max(32, 1 << (values - 1).bit_length()),
    }


def _warps(values: int) -> int:
    """Eight values a thread: a patch of 768 in four warps."""
    return min(16, max(1, (1 << (values - 1).bit_length()) // 256))


def _counted(prediction: Tensor, keep: Tensor | None) -> Tensor:
    """How many values count; on the device, where it is used, and at least 1, so that it can divide."""
    images, rows, values = prediction.shape
    if keep is None:
        return torch.full((), max(images * rows * values, 1), dtype=torch.float32, device=prediction.device)
    return (keep.sum() * values).clamp(min=1).float()


def run_forward(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> Tensor:
    images, rows, values = prediction.shape
    sums = torch.empty((images * rows,), dtype=torch.float32, device=prediction.device)
    arguments = _arguments(prediction, image, index, keep, normalise, eps) | {"sums": sums}
    launch.launch(pixel_mse_forward, images * rows, arguments, num_warps=_warps(values), num_stages=1)
    return sums.sum() / _counted(prediction, keep)


def run_backward(
    d_loss: Tensor,
    prediction: Tensor,
    image: Tensor,
    index: Tensor | None,
    keep: Tensor | None,
    normalise: bool,
    eps: float,
) -> Tensor:
    images, rows, values = prediction.shape
    d_prediction = torch.empty(prediction.shape, dtype=prediction.dtype, device=prediction.device)
    arguments = _arguments(prediction, image, index, keep, normalise, eps)
    arguments |= {"factor": 2 * d_loss.float() / _counted(prediction, keep), "d_prediction": d_prediction}
    launch.launch(pixel_mse_backward, images * rows, arguments, num_warps=_warps(values), num_stages=1)
    return d_prediction


def supports(
    prediction: Tensor,
    image: Tensor,
    index: Tensor | None = None,
    keep: Tensor | None = None,
    normalise: bool = True,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    floats = (torch.float16, torch.bfloat16, torch.float32)
    if reason := launch.unavailable(prediction, image, index, keep):
        return reason
    if prediction.dtype not in floats or image.dtype not in floats:
        return (
            f"prediction is {prediction.dtype} and image {image.dtype}: float16, bfloat16, float32 are served"
        )
    if prediction.ndim != 3 or image.ndim != 4 or prediction.shape[0] != image.shape[0]:
        return (
            f"prediction has shape {list(prediction.shape)} and image {list(image.shape)}: [B, M, P*P*C] and "
            "[B, C, H, W] are served"
        )
    rows, values = prediction.shape[1:]
    channels, height, width = image.shape[1:]
    side = isqrt(values // channels) if channels else 0
    if side == 0 or side * side * channels != values or height % side or width % side:
        return (
            f"a row has {values} values for {channels} channels on {height}x{width} pixels: P*P*C values, "
            "where P divides both sides, are served"
        )
    if values > 16384:
        return f"a patch has {values} values: up to 16384 fit one program"
    if values == 1 and normalise:
        return "a patch of one value has no variance to be normalised by"
    if prediction.stride(-1) != 1 and values > 1:
        return f"the last dimension of prediction has stride {prediction.stride(-1)}: 1 is served"
    if index is not None and keep is not None:
        return "index and keep are both given: at most one of them says which rows count"
    table = prediction.shape[:2]
    if index is not None and (index.dtype not in (torch.int32, torch.int64) or index.shape != table):
        return f"index is {index.dtype} {list(index.shape)}: int32 or int64 {list(table)} is served"
    patches = (height // side) * (width // side)
    if index is None and rows != patches:
        return f"prediction has {rows} rows for {patches} patches: without an index they must be equal"
    if keep is not None and (keep.dtype != torch.bool or keep.shape != table):
        return f"keep is {keep.dtype} {list(keep.shape)}: bool {list(table)} is served"
    return None


def _fake_forward(prediction: Tensor, *_: Any) -> Tensor:
    return prediction.new_empty((), dtype=torch.float32)


def _fake_backward(d_loss: Tensor, prediction: Tensor, *_: Any) -> Tensor:
    return prediction.new_empty(prediction.shape)


masked_pixel_mse = launch.register("masked_pixel_mse_triton", _fake_forward)(run_forward)
masked_pixel_mse_backward = launch.register("masked_pixel_mse_backward_triton", _fake_backward)(run_backward)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.normalise, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_loss: Tensor) -> tuple:
    d_prediction = masked_pixel_mse_backward(d_loss, *ctx.saved_tensors, ctx.normalise, ctx.eps)
    return d_prediction, None, None, None, None, None


# No rule for autocast: whatever types come in, the arithmetic and the loss are fp32.
masked_pixel_mse.register_autograd(_backward, setup_context=_save)


@register_flop_formula([registered.masked_pixel_mse_triton, registered.masked_pixel_mse_backward_triton])
def flops(*_: Any, **__: Any) -> int:
    """PyTorch's counter counts matrix products, and this op has none."""
    return 0


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of both launchers: the usual patches and a large one, rows counted in both ways."""

    def both(prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None) -> None:
        run_forward(prediction, image, index, keep, True, 1e-6)
        run_backward(torch.empty((), device="meta"), prediction, image, index, keep, True, 1e-6)

    cases = (16, torch.bfloat16, True), (16, torch.float32, False), (32, torch.bfloat16, False)
    for side, dtype, listed in cases:
        rows = (224 // side) ** 2
        prediction = torch.empty((8, rows, side * side * 3), dtype=dtype, device="meta")
        image = torch.empty((8, 3, 224, 224), device="meta")
        index = torch.empty((8, rows), dtype=torch.int64, device="meta") if listed else None
        keep = None if listed else torch.empty((8, rows), dtype=torch.bool, device="meta")
        case = f"P={side} {'index' if listed else 'keep'} {str(dtype).removeprefix('torch.')}"
        yield case, partial(both, prediction, image, index, keep)
