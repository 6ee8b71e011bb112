"""Attention by our kernels alone, in the terms of PyTorch's flash operators.

Those keep lse of each row, ln of the sum of e to its scaled scores, where ours keep a largest score and a
sum, or nothing: with lse a forward and a backward of either kind go together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagen_fast.ops.contexts import Raster, Window
from imagen_fast.ops.cpu import causal_pixel_attention as causal_cpu
from imagen_fast.ops.cpu import flash as cpu
from imagen_fast.ops.cpu import masked_patch_attention as masked_cpu


def kernel_serves(q: Tensor, k: Tensor, v: Tensor, causal: bool, bias: Tensor | None = None) -> bool:
    """Whether there is a kernel of ours for q, k and v, [B, N, H, D] of one type, on one device, not empty.

    What our operations do without one is no faster than PyTorch's attention, and in half types less exact.
    """
    if q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:] or k.shape != v.shape:
        return False
    if causal and q.shape != k.shape:
        return False
    if q.device.type == "cpu":
        if causal:
            return causal_cpu.plan(q.dtype, q.shape[3], _window(q)) == "native"
        return bias is None and masked_cpu.plan(q.dtype, q.shape[1], k.shape[1], q.shape[3]) == "native"
    if q.device.type != "cuda":
        return False
    if causal:
        from imagen_fast.kernels import causal_pixel_attention as causal_kernel

        return causal_kernel.supports(q, k, v, *_window(q)) is None
    from imagen_fast.kernels import masked_patch_attention as kernel

    return kernel.supports(q, k, v, bias=bias) is None


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(scale * q k^T) v over all keys, or those before, where `kernel_serves`.

    Args:
        q: [B, M, H, D]; k, v: [B, N, H, D].

    Returns:
        The output [B, M, H, D], contiguous, and lse [B, H, M] in float32.
    """
    window = _window(q) if causal else None
    if q.device.type == "cpu":
        return cpu.forward(q, k, v, window, scale)
    return _triton_forward(q, k, v, window, scale)


def backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, contiguous; `out` and `lse` are what a forward made, ours or PyTorch's."""
    window = _window(q) if causal else None
    # The largest score and the sum over it, or one over that: with 2^largest for the whole sum, 1.
    largest = lse / math.log(2)
    statistics = torch.stack((largest, torch.ones_like(largest)), 2)
    if q.device.type == "cpu":
        return cpu.backward(d_out, q, k, v, out, statistics, window, scale)
    return _triton_backward(d_out, q, k, v, out, statistics, window, scale)


def _triton_forward(
    q: Tensor, k: Tensor, v: Tensor, window: Window | None, scale: float
) -> tuple[Tensor, Tensor]:
    if window is None:
        from imagen_fast.kernels import masked_patch_attention_launch as launch

        return launch.run_forward_with_lse(q, k, v, scale)
    from imagen_fast.kernels import causal_pixel_attention_launch as causal_launch

    out, statistics = causal_launch.run_forward(q, k, v, *window, scale)
    largest, total = statistics.unbind(2)
    return out, (largest + total.log2()) * math.log(2)


def _triton_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    statistics: Tensor,
    window: Window | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if window is None:
        from imagen_fast.kernels import masked_patch_attention_launch as launch

        # It makes the sums again.
        tables = (None,) * 4
        d_q, d_k, d_v, _ = launch.run_backward(d_out, q, k, v, *tables, q.shape[1], k.shape[1], scale)
        return d_q, d_k, d_v
    from imagen_fast.kernels import causal_pixel_attention_launch as causal_launch

    return causal_launch.run_backward(d_out, q, k, v, out, statistics, *window, scale)


def _window(q: Tensor) -> Window:
    """Each token after all those before it: a grid of one line."""
    return Raster().window((1, q.shape[1]))
