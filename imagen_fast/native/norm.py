"""Layer and root-mean-square normalisation of bf16 rows with float32 sums: see csrc/cpu/layer_norm.h.

x is [..., E], weight and bias [E], all of them contiguous and bfloat16. Without a bias it is by the root mean
square.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.tensors import dense


def norm_forward(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised rows, and what the backward wants of each, float32: with a bias (one over the deviation,
    mean) [rows, 2], without one over the root mean square [rows, 1].
    """
    y = torch.empty_like(x)
    statistics = torch.empty(_rows(x), 1 if bias is None else 2, dtype=torch.float32)
    _norm(x, weight, bias, eps).forward(
        y=y.data_ptr(), statistics=statistics.data_ptr(), threads=library.threads()
    )
    return y, statistics


def norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, empty where there is none; d_y is contiguous, like x."""
    d_x, d_weight = torch.empty_like(x), torch.empty_like(weight)
    d_bias = weight.new_empty(0) if bias is None else torch.empty_like(bias)
    _norm(x, weight, bias, eps).backward(
        d_y=dense("the gradient", d_y, x.numel(), torch.bfloat16),
        statistics=dense("statistics", statistics, None, torch.float32),
        d_x=d_x.data_ptr(),
        d_weight=d_weight.data_ptr(),
        d_bias=d_bias.data_ptr(),
        threads=library.threads(),
    )
    return d_x, d_weight, d_bias


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Any:
    width = x.shape[-1]
    return library.cpu().LayerNorm(
        x=dense("x", x, None, torch.bfloat16),
        weight=dense("weight", weight, width, torch.bfloat16),
        bias=0 if bias is None else dense("bias", bias, width, torch.bfloat16),
        rows=_rows(x),
        width=width,
        eps=eps,
    )


def _rows(x: Tensor) -> int:
    return x.numel() // max(1, x.shape[-1])
