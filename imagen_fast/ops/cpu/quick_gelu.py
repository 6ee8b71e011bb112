"""x * sigmoid(1.702 x) on the CPU in bf16, as an operator of PyTorch over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native
from imagen_fast.operators import NAMESPACE

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(x: Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and this is on {x.device}"
    if x.dtype != torch.bfloat16:
        return f"it serves bfloat16, and this is {x.dtype}"
    return _UNAVAILABLE


@library.custom_op(f"{NAMESPACE}::quick_gelu_cpu", mutates_args=(), device_types="cpu")
def quick_gelu(x: Tensor) -> Tensor:
    return native.quick_gelu_forward(x.contiguous())


@quick_gelu.register_fake
def _(x):
    return x.new_empty(x.shape)


@library.custom_op(f"{NAMESPACE}::quick_gelu_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(d_y: Tensor, x: Tensor) -> Tensor:
    return native.quick_gelu_backward(d_y.contiguous(), x.contiguous())


@_backward.register_fake
def _(d_y, x):
    return x.new_empty(x.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, d_y):
    return _backward(d_y, *ctx.saved_tensors)


quick_gelu.register_autograd(_differentiate, setup_context=_save)
