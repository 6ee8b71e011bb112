"""Tiles of queries and keys turned by their place on the grid when loaded; gradients turned back when stored.

A row x at place p becomes, with c = cos[p], s = sin[p] and x1, x2 the halves of x,

    x1' = x1 c - x2 s,   x2' = x2 c + x1 s

A turned tile has its columns interleaved (0, D/2, 1, D/2 + 1, ...): joining the halves then moves nothing
between threads, and no product of two such tiles depends on the order. Turning is in fp32, rounded once to
the tensor's type. ``turn`` is the two tables ``(cos, sin)``, fp32 ``[P, D/2]``; without them tiles are moved
as they are.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.rows import load_tile, places_at, store_tile, tile_mask, tile_pointer


@triton.jit
def _turns(turn, position, side, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr):
    """Cosines and sines, [positions, BLOCK_HALF]."""
    cos, sin = turn
    offset = places_at(position, side)[:, None] * HALF + tl.arange(0, BLOCK_HALF)[None, :]
    mask = tile_mask(position, side, HALF, BLOCK_HALF)
    return tl.load(cos + offset, mask=mask, other=0.0), tl.load(sin + offset, mask=mask, other=0.0)


@triton.jit
def load_turned(base, stride, position, side, turn, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows ``position`` of one head, turned, [positions, BLOCK_D]."""
    cos, _sin = turn
    if cos is None:
        tile = load_tile(base, stride, position, side, D, BLOCK_D)
    else:
        pointer = tile_pointer(base, stride, position, side, BLOCK_D // 2)
        mask = tile_mask(position, side, D // 2, BLOCK_D // 2)
        x1 = tl.load(pointer, mask=mask, other=0.0).to(tl.float32)
        x2 = tl.load(pointer + D // 2, mask=mask, other=0.0).to(tl.float32)
        c, s = _turns(turn, position, side, D // 2, BLOCK_D // 2)
        tile = tl.join(x1 * c - x2 * s, x2 * c + x1 * s)
        tile = tl.reshape(tile, (position.shape[0], BLOCK_D)).to(base.dtype.element_ty)
    return tile


@triton.jit
def store_turned(base, stride, position, side, turn, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The gradient of rows that ``load_turned`` has loaded."""
    cos, _sin = turn
    if cos is None:
        store_tile(base, stride, position, side, tile, D, BLOCK_D)
    else:
        pointer = tile_pointer(base, stride, position, side, BLOCK_D // 2)
        mask = tile_mask(position, side, D // 2, BLOCK_D // 2)
        d1, d2 = tl.split(tl.reshape(tile, (position.shape[0], BLOCK_D // 2, 2)))
        c, s = _turns(turn, position, side, D // 2, BLOCK_D // 2)
        tl.store(pointer, (d1 * c + d2 * s).to(base.dtype.element_ty), mask=mask)
        tl.store(pointer + D // 2, (d2 * c - d1 * s).to(base.dtype.element_ty), mask=mask)
