"""The fused masked-pixel error on the CPU, as a torch.library operator over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native
from imagen_fast.operators import NAMESPACE

_TYPES = (torch.float32, torch.bfloat16)

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(prediction: Tensor, image: Tensor) -> str | None:
    if prediction.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {prediction.device}"
    if prediction.dtype not in _TYPES or image.dtype not in _TYPES:
        return f"it serves float32 and bfloat16, and these are {prediction.dtype} and {image.dtype}"
    return _UNAVAILABLE


@library.custom_op(f"{NAMESPACE}::masked_pixel_mse_cpu", mutates_args=(), device_types="cpu")
def masked_pixel_mse(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> Tensor:
    return native.masked_pixel_mse_forward(prediction, image, index, keep, normalise, eps)[0]


@masked_pixel_mse.register_fake
def _(prediction, image, index, keep, normalise, eps):
    return prediction.new_empty((), dtype=torch.float32)


@library.custom_op(f"{NAMESPACE}::masked_pixel_mse_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(
    d_loss: Tensor,
    prediction: Tensor,
    image: Tensor,
    index: Tensor | None,
    keep: Tensor | None,
    normalise: bool,
    eps: float,
) -> Tensor:
    return native.masked_pixel_mse_backward(float(d_loss), prediction, image, index, keep, normalise, eps)


@_backward.register_fake
def _(d_loss, prediction, image, index, keep, normalise, eps):
    return torch.empty(prediction.shape, dtype=prediction.dtype, device=prediction.device)


def _save(ctx, inputs, output):
    prediction, image, index, keep, ctx.normalise, ctx.eps = inputs
    ctx.save_for_backward(prediction, image, index, keep)


def _differentiate(ctx, d_loss):
    return _backward(d_loss, *ctx.saved_tensors, ctx.normalise, ctx.eps), None, None, None, None, None


masked_pixel_mse.register_autograd(_differentiate, setup_context=_save)
