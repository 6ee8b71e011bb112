"""Root-mean-square normalisation on the CPU in bf16, as an operator of PyTorch over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(x: Tensor, weight: Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {x.device}"
    if not x.dtype == weight.dtype == torch.bfloat16:
        return f"it serves bfloat16, and these are {x.dtype} and {weight.dtype}"
    return _UNAVAILABLE


@library.custom_op("imagen_fast::rms_norm_cpu", mutates_args=(), device_types="cpu")
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return native.rms_norm_forward(x.contiguous(), weight.contiguous(), eps)


@_rms_norm.register_fake
def _(x, weight, eps):
    rows = x.numel() // max(1, x.shape[-1])
    return x.new_empty(x.shape), x.new_empty(rows, 1, dtype=torch.float32)


@library.custom_op("imagen_fast::rms_norm_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(
    d_y: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    d_y, x, weight = (t.contiguous() for t in (d_y, x, weight))
    return native.rms_norm_backward(d_y, x, weight, statistics, eps)


@_backward.register_fake
def _(d_y, x, weight, statistics, eps):
    return tuple(t.new_empty(t.shape) for t in (x, weight))


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_y, _):
    if d_y is None:
        return None, None, None
    return *_backward(d_y, *ctx.saved_tensors, ctx.eps), None


_rms_norm.register_autograd(_differentiate, setup_context=_save)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _rms_norm(x, weight, eps)[0]
