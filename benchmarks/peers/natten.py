"""NATTEN's neighbourhood attention, causal along both axes: a quadrant, or the part of it within a window."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from imagen_fast.benchmarks.peers import NATTEN
from imagen_fast.ops.contexts import Window


def attention(window: Window) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Of q, k, v [B, N, H, D] in raster order.

    Raises:
        ValueError: its windows are products of an interval a dimension, which this context is not.
    """
    if window.right or window.prefix:
        raise ValueError("a raster context or a prefix is no window that is causal along both axes")
    (na2d,) = NATTEN.load("na2d")
    grid = (window.height, window.width)
    # A window counts the pixel itself.
    size = (min(window.above + 1, window.height), min(window.left + 1, window.width))

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(1, grid) for x in (q, k, v))
        return na2d(q, k, v, kernel_size=size, is_causal=True).flatten(1, 2)

    return call
