"""x * sigmoid(1.702 x) of bf16 values, and its gradient: see csrc/cpu/quick_gelu.h."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.tensors import dense


def quick_gelu_forward(x: Tensor) -> Tensor:
    """Of a contiguous bfloat16 tensor of any shape."""
    y = torch.empty_like(x)
    library.cpu().quick_gelu_forward(
        x=dense("x", x, None, torch.bfloat16), count=x.numel(), y=y.data_ptr(), threads=library.threads()
    )
    return y


def quick_gelu_backward(d_y: Tensor, x: Tensor) -> Tensor:
    """The gradient of x from that of the output, contiguous like x."""
    d_x = torch.empty_like(x)
    library.cpu().quick_gelu_backward(
        d_y=dense("the gradient", d_y, x.numel(), torch.bfloat16),
        x=dense("x", x, None, torch.bfloat16),
        count=x.numel(),
        d_x=d_x.data_ptr(),
        threads=library.threads(),
    )
    return d_x
