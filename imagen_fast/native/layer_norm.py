"""Layer and root-mean-square normalisation of bf16 rows with float32 sums: see csrc/cpu/layer_norm.h.

x is [..., E], weight and bias [E], all of them contiguous and bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import dense


def layer_norm_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised rows, and (one over the deviation, mean) of each, float32 [rows, 2]."""
    return _forward(x, weight, bias, eps)


def layer_norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; d_y is contiguous, like x."""
    d_bias = torch.empty_like(bias)
    return *_backward(d_y, x, weight, bias, statistics, eps, d_bias.data_ptr()), d_bias


def rms_norm_forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised rows, and one over the root mean square of each, float32 [rows, 1]."""
    return _forward(x, weight, None, eps)


def rms_norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The gradients of x and weight; d_y is contiguous, like x."""
    return _backward(d_y, x, weight, None, statistics, eps, 0)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x)
    statistics = torch.empty(_rows(x), 1 if bias is None else 2, dtype=torch.float32)
    _norm(x, weight, bias, eps).forward(y=y.data_ptr(), statistics=statistics.data_ptr(), threads=threads())
    return y, statistics


def _backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, statistics: Tensor, eps: float, d_bias: int
) -> tuple[Tensor, Tensor]:
    d_x, d_weight = torch.empty_like(x), torch.empty_like(weight)
    _norm(x, weight, bias, eps).backward(
        d_y=dense("the gradient", d_y, x.numel(), torch.bfloat16),
        statistics=dense("statistics", statistics, None, torch.float32),
        d_x=d_x.data_ptr(),
        d_weight=d_weight.data_ptr(),
        d_bias=d_bias,
        threads=threads(),
    )
    return d_x, d_weight


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Any:
    width = x.shape[-1]
    return cpu().LayerNorm(
        x=dense("x", x, None, torch.bfloat16),
        weight=dense("weight", weight, width, torch.bfloat16),
        bias=0 if bias is None else dense("bias", bias, width, torch.bfloat16),
        rows=_rows(x),
        width=width,
        eps=eps,
    )


def _rows(x: Tensor) -> int:
    return x.numel() // max(1, x.shape[-1])
