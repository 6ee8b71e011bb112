"""Layer and root-mean-square normalisation on the CPU in bf16: one operator over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native
from imagen_fast.operators import NAMESPACE
from imagen_fast.ops.dispatch import NO_RULES, transformed

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(x: Tensor, *parameters: Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {x.device}"
    for tensor in (x, *parameters):
        if tensor.dtype != torch.bfloat16:
            return f"it serves bfloat16, and one of these is {tensor.dtype}"
    if any(tensor.shape != x.shape[-1:] for tensor in parameters):
        return "the parameters are not of the last dimension, which PyTorch explains"
    return NO_RULES if transformed() else _UNAVAILABLE


@library.custom_op(f"{NAMESPACE}::norm_cpu", mutates_args=(), device_types="cpu")
def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    bias = None if bias is None else bias.contiguous()
    return native.norm_forward(x.contiguous(), weight.contiguous(), bias, eps)


@_norm.register_fake
def _(x, weight, bias, eps):
    rows = x.numel() // max(1, x.shape[-1])
    return x.new_empty(x.shape), x.new_empty(rows, 1 if bias is None else 2, dtype=torch.float32)


@library.custom_op(f"{NAMESPACE}::norm_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    d_y, x, weight = (t.contiguous() for t in (d_y, x, weight))
    bias = None if bias is None else bias.contiguous()
    return native.norm_backward(d_y, x, weight, bias, statistics, eps)


@_backward.register_fake
def _(d_y, x, weight, bias, statistics, eps):
    d_bias = weight.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_bias


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    x, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_y, _):
    if d_y is None:
        return None, None, None, None
    x, weight, bias, statistics = ctx.saved_tensors
    d_x, d_weight, d_bias = _backward(d_y, x, weight, bias, statistics, ctx.eps)
    return d_x, d_weight, None if bias is None else d_bias, None


_norm.register_autograd(_differentiate, setup_context=_save)


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Without a bias by the root mean square: no mean is taken away either."""
    return _norm(x, weight, bias, eps)[0]
