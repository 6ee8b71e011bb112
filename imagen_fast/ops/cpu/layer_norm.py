"""Layer normalisation on the CPU in bf16, as a torch.library operator over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast import native

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {x.device}"
    if not x.dtype == weight.dtype == bias.dtype == torch.bfloat16:
        return f"it serves bfloat16, where PyTorch's own sums are not exact enough, and this is {x.dtype}"
    return _UNAVAILABLE


@torch.library.custom_op("imagen_fast::layer_norm_cpu", mutates_args=(), device_types="cpu")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return native.layer_norm_forward(x.contiguous(), weight.contiguous(), bias.contiguous(), eps)


@_layer_norm.register_fake
def _(x, weight, bias, eps):
    rows = x.numel() // max(1, x.shape[-1])
    return x.new_empty(x.shape), x.new_empty(rows, 2, dtype=torch.float32)


@torch.library.custom_op("imagen_fast::layer_norm_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    d_y, x, weight, bias = (t.contiguous() for t in (d_y, x, weight, bias))
    return native.layer_norm_backward(d_y, x, weight, bias, statistics, eps)


@_backward.register_fake
def _(d_y, x, weight, bias, statistics, eps):
    return tuple(t.new_empty(t.shape) for t in (x, weight, bias))


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    x, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_y, _):
    if d_y is None:
        return None, None, None, None
    return *_backward(d_y, *ctx.saved_tensors, ctx.eps), None


_layer_norm.register_autograd(_differentiate, setup_context=_save)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return _layer_norm(x, weight, bias, eps)[0]
