"""Attention of pixels in generation order, and its mask fused into a softmax: contracts, checks, dispatch."""

from __future__ import annotations

import math

from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference
from imagen_fast.ops.contexts import CausalContext, Window
from imagen_fast.ops.cpu import causal_pixel_attention as cpu
from imagen_fast.ops.cpu import causal_pixel_softmax as cpu_softmax
from imagen_fast.ops.dispatch import choose
from imagen_fast.ops.functional.checks import FLOATS, autocast, same_kind


def causal_pixel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    context: CausalContext,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention of the pixels (or patches) of a grid to those generated before them, and to themselves.

    softmax(scale * q k^T) v over the keys that the context lets a query see (Vaswani et al. 2017, eq. 1, with
    its mask on a grid). Every query sees at least itself. All values must be finite.

    Args:
        q, k, v: [B, N, H, D] in raster order, N = height * width; any strides, last dimension contiguous.
        grid: (height, width) in pixels or patches.
        context: `Raster`, `Quadrant` or `Neighbourhood`, each with or without a prefix that all see.
        scale: factor of the scores; 1 / sqrt(D) where not given.
        backend: force 'triton', 'cpu' or 'reference' for this call.

    Returns:
        A tensor shaped like q, in q's type: float32, bfloat16 or float16.

    Raises:
        InvalidInput: shapes, types or devices that do not fit together.
        BackendUnavailable: the forced back-end cannot serve the call.
    """
    q, k, v = autocast(q, k, v)
    window = _check(q, k, v, grid, context)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)

    def refusal(name: str) -> str | None:
        if name == "triton":
            from imagen_fast.kernels import causal_pixel_attention as kernel

            return kernel.supports(q, k, v, *window)
        return cpu.refusal(q) if name == "cpu" else None

    chosen = choose("causal_pixel_attention", q.device, refusal, backend)
    if chosen == "reference":
        return reference.causal_pixel_attention(q, k, v, window, scale)
    if chosen == "triton":
        from imagen_fast.kernels import causal_pixel_attention as kernel

        return kernel.causal_pixel_attention(q, k, v, *window, scale)
    return cpu.causal_pixel_attention(q, k, v, *window, scale)


def causal_pixel_softmax(
    scores: Tensor, grid: tuple[int, int], context: CausalContext, *, backend: str | None = None
) -> Tensor:
    """Softmax over the keys that the context lets each query see, for those who keep their own products.

    Args:
        scores: [..., N, N] of queries and keys in raster order, N = height * width; floating point. Those of
            keys that are not seen are never read: NaN there changes nothing, and their gradient is zero.
        grid: (height, width) in pixels or patches.
        context: `Raster`, `Quadrant` or `Neighbourhood`, each with or without a prefix that all see.
        backend: force 'triton', 'cpu' or 'reference' for this call.

    Returns:
        Probabilities shaped like the scores, in their type; zero for keys that are not seen.

    Raises:
        InvalidInput, BackendUnavailable: as `causal_pixel_attention`.
    """
    window = context.window(grid)
    pixels = window.height * window.width
    if scores.dim() < 2 or scores.shape[-2:] != (pixels, pixels) or scores.dtype not in FLOATS:
        raise InvalidInput(
            f"scores must be floating point [..., {pixels}, {pixels}] for a grid of "
            f"{window.height}x{window.width}, not {scores.dtype} {tuple(scores.shape)}"
        )
    flat = scores.flatten(0, -3) if scores.dim() > 2 else scores[None]  # [L, N, N]

    def refusal(name: str) -> str | None:
        if name == "triton":
            from imagen_fast.kernels import causal_pixel_softmax as kernel

            return kernel.supports(flat, *window)
        return cpu_softmax.refusal(flat) if name == "cpu" else None

    chosen = choose("causal_pixel_softmax", scores.device, refusal, backend)
    if chosen == "reference":
        return reference.causal_pixel_softmax(scores, window)
    if chosen == "triton":
        from imagen_fast.kernels import causal_pixel_softmax as kernel

        return kernel.causal_pixel_softmax(flat, *window).view(scores.shape)
    return cpu_softmax.causal_pixel_softmax(flat, *window).view(scores.shape)


def _check(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], context: CausalContext) -> Window:
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise InvalidInput(
            "q, k and v must be [B, N, H, D] of one shape, not "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    same_kind(q, k, v)
    window = context.window(grid)
    if q.shape[1] != window.height * window.width:
        raise InvalidInput(
            f"a grid of {window.height}x{window.width} has {window.height * window.width} pixels, "
            f"but q is {tuple(q.shape)}"
        )
    return window
