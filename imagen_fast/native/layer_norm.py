"""Layer normalisation of bf16 rows with float32 sums: see csrc/cpu/layer_norm.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import dense


def layer_norm_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised rows, and (mean, one over the deviation) of each, float32 [rows, 2].

    x is [..., E], contiguous; all three are bfloat16.
    """
    y = torch.empty_like(x)
    statistics = torch.empty(x.numel() // max(1, x.shape[-1]), 2)
    _norm(x, weight, bias, eps).forward(y=y.data_ptr(), statistics=statistics.data_ptr(), threads=threads())
    return y, statistics


def layer_norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; d_y is contiguous, like x."""
    d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    _norm(x, weight, bias, eps).backward(
        d_y=dense("the gradient", d_y, x.numel(), torch.bfloat16),
        statistics=dense("statistics", statistics, None, torch.float32),
        d_x=d_x.data_ptr(),
        d_weight=d_weight.data_ptr(),
        d_bias=d_bias.data_ptr(),
        threads=threads(),
    )
    return d_x, d_weight, d_bias


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
    width = x.shape[-1]
    return cpu().LayerNorm(
        x=dense("x", x, None, torch.bfloat16),
        weight=dense("weight", weight, width, torch.bfloat16),
        bias=dense("bias", bias, width, torch.bfloat16),
        rows=x.numel() // max(1, width),
        width=width,
        eps=eps,
    )
