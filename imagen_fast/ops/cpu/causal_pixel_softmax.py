"""The causal softmax on the CPU, as an operator of PyTorch over the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor, library

from imagen_fast import native
from imagen_fast.operators import NAMESPACE

_TYPES = (torch.float32, torch.bfloat16)

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(scores: Tensor) -> str | None:
    if scores.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {scores.device}"
    if scores.dtype not in _TYPES:
        return f"it serves float32 and bfloat16, and these are {scores.dtype}"
    return _UNAVAILABLE


@library.custom_op(f"{NAMESPACE}::causal_pixel_softmax_cpu", mutates_args=(), device_types="cpu")
def causal_pixel_softmax(
    scores: Tensor, height: int, width: int, above: int, left: int, right: int, prefix: int
) -> Tensor:
    return native.causal_softmax_forward(scores, (height, width, above, left, right, prefix))


@causal_pixel_softmax.register_fake
def _(scores, *window):
    return scores.new_empty(scores.shape)


@library.custom_op(f"{NAMESPACE}::causal_pixel_softmax_backward_cpu", mutates_args=(), device_types="cpu")
def _backward(
    d_p: Tensor, p: Tensor, height: int, width: int, above: int, left: int, right: int, prefix: int
) -> Tensor:
    return native.causal_softmax_backward(d_p, p, (height, width, above, left, right, prefix))


@_backward.register_fake
def _(d_p, p, *window):
    return p.new_empty(p.shape)


def _save(ctx, inputs, output):
    _, *ctx.window = inputs
    ctx.save_for_backward(output)


def _differentiate(ctx, d_p):
    return _backward(d_p, *ctx.saved_tensors, *ctx.window), *(None,) * 6


causal_pixel_softmax.register_autograd(_differentiate, setup_context=_save)
