"""Our native attention with what PyTorch's flash operators keep of a row in place of our two numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagen_fast import native
from imagen_fast.ops.contexts import Rows, Window

# A graph is traced through the answer, not through the compiled module. Marked here and not where it is made:
# it loads the compiler.
torch.compiler.assume_constant_result(native.attention_pays)


def forward(q: Tensor, k: Tensor, v: Tensor, window: Window | None, scale: float) -> tuple[Tensor, Tensor]:
    """The output [B, M, H, D], and lse [B, H, M]: see `imagen_fast.ops.flash`."""
    out = torch.empty(q.shape, dtype=q.dtype)
    statistics = torch.empty((q.shape[0], q.shape[2], 2, q.shape[1]), dtype=torch.float32)
    _problem(q, k, v, window, scale).forward(out, statistics)
    largest, inverse = statistics.unbind(2)
    return out, (largest - inverse.log2()) * math.log(2)


def backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    statistics: Tensor,
    window: Window | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, contiguous; `statistics` [B, H, 2, M] are the kernel's own."""
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    _problem(q, k, v, window, scale).backward(d_out, out, statistics, (d_q, d_k, d_v))
    return d_q, d_k, d_v


def _problem(
    q: Tensor, k: Tensor, v: Tensor, window: Window | None, scale: float
) -> native.attention.Attention:
    if window is not None:
        return native.attention_on_grid(q, k, v, window, scale)
    return native.attention_among_rows(q, k, v, Rows(q.shape[1]), Rows(k.shape[1]), scale)
