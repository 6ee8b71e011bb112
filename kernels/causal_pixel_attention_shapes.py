"""Block shapes of causal pixel attention: pixels of a tile, its sides, warps.

Chosen as those of masked-patch attention were: the largest tiles that spill on no chip, with 64 rows where a
Hopper matrix instruction wants them. No stopwatch has chosen among them yet.
"""

import torch

from imagen_fast.kernels.causal_pixel_window import Window
from imagen_fast.kernels.masked_patch_attention_shapes import Blocks, Case, _operands_in_shared


def sides(window: Window, pixels: int) -> tuple[int, int]:
    """Height and width of a tile of ``pixels``: as near to a square as the grid lets it be.

    A square sees the fewest tiles for its size. Comparisons alone, so that a compiler with symbolic shapes
    keeps one graph for a range of grids.
    """
    tall, wide = 1, 1
    while tall * wide < pixels:
        if tall >= window.height or (wide <= tall and wide < window.width):
            wide *= 2
        else:
            tall *= 2
    return tall, wide


def forward_blocks(window: Window, case: Case) -> Blocks:
    """Every tile of keys comes from L2 once a tile of queries, and 64 queries make about as much work for
    the matrix units of a Hopper as L2 can feed: 128 where a query sees far. Of keys near by, 64 see fewer in
    vain.
    """
    if case.dtype == torch.float32:
        return Blocks(32, 32, 4) if case.width <= 32 else Blocks(32 if case.width <= 64 else 16, 64, 8)
    if case.width <= 32:
        return Blocks(64, 64, 4, stages=3)
    if window.limited or window.height * window.width <= 64:
        return Blocks(64, 64, 4, stages=2)
    return Blocks(128, 64, 8, stages=2)


def query_blocks(case: Case) -> Blocks:
    """The kernel of dq."""
    if case.dtype == torch.float32:
        return Blocks(32 if case.width <= 32 else 16, 32 if case.width <= 64 else 16, 8)
    shared = _operands_in_shared(case.capability)
    if case.width <= 64:
        return Blocks(64, 64 if shared or case.width <= 32 else 32, 4, stages=2)
    return Blocks(64, 32, 4 if shared else 8, stages=2)


def key_blocks(case: Case) -> Blocks:
    """The kernel of dk and dv."""
    if case.dtype == torch.float32:
        return Blocks(32 if case.width <= 64 else 16, 32, 8)
    if case.width <= 64:
        shared = _operands_in_shared(case.capability)
        return Blocks(32 if shared or case.width <= 32 else 16, 64, 4, stages=2)
    return Blocks(32, 64, 8)
