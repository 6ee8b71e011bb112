"""GELU of bf16 values, exact or quick, and its gradient: see csrc/cpu/gelu.h."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.tensors import dense


def gelu_forward(x: Tensor, quick: bool = False) -> Tensor:
    """Of a contiguous bfloat16 tensor of any shape; `quick`: x * sigmoid(1.702 x)."""
    y = torch.empty_like(x)
    library.cpu().gelu_forward(
        x=dense("x", x, None, torch.bfloat16),
        count=x.numel(),
        quick=quick,
        y=y.data_ptr(),
        threads=library.threads(),
    )
    return y


def gelu_backward(d_y: Tensor, x: Tensor, quick: bool = False) -> Tensor:
    """The gradient of x from that of the output, contiguous like x."""
    d_x = torch.empty_like(x)
    library.cpu().gelu_backward(
        d_y=dense("the gradient", d_y, x.numel(), torch.bfloat16),
        x=dense("x", x, None, torch.bfloat16),
        count=x.numel(),
        quick=quick,
        d_x=d_x.data_ptr(),
        threads=library.threads(),
    )
    return d_x
