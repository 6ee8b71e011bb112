"""GELU on the CPU in bf16, exact or quick, as an operator of PyTorch over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native
from imagen_fast.operators import NAMESPACE
from imagen_fast.ops.dispatch import NO_RULES, transformed

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(x: Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and this is on {x.device}"
    if x.dtype != torch.bfloat16:
        return f"it serves bfloat16, and this is {x.dtype}"
    if x.dim() == 4 and not x.is_contiguous():
        return "it does not keep a map's channels last"
    return NO_RULES if transformed() else _UNAVAILABLE


@library.custom_op(f"{NAMESPACE}::gelu_cpu", mutates_args=(), device_types="cpu")
def gelu(x: Tensor, quick: bool) -> Tensor:
    return native.gelu_forward(x.contiguous(), quick)


@gelu.register_fake
def _(x, quick):
    return x.new_empty(x.shape)


@library.custom_op(f"{NAMESPACE}::gelu_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(d_y: Tensor, x: Tensor, quick: bool) -> Tensor:
    return native.gelu_backward(d_y.contiguous(), x.contiguous(), quick)


@_backward.register_fake
def _(d_y, x, quick):
    return x.new_empty(x.shape)


def _save(ctx, inputs, output):
    x, ctx.quick = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx, d_y):
    (x,) = ctx.saved_tensors
    return _backward(d_y, x, ctx.quick), None


gelu.register_autograd(_differentiate, setup_context=_save)
