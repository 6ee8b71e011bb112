"""Where the rows of an image lie, and how tiles of them are moved. Shared by the attention kernels.

A tensor is ``[B, N, H, D]``, or packed ``[T, H, D]`` with an image stride of 0. An image's i-th row,
i < count, is row ``start + i``, or ``start + index[i]``. Rows are int64: a stride multiplies them.
"""

import triton
import triton.language as tl


@triton.jit
def span(spans, image, rows):
    """The image's first row and its number of rows; without a table, all rows of the 4-D tensor."""
    if spans is None:
        start = tl.full((), 0, tl.int64)
        count = rows
    else:
        start = tl.load(spans + 2 * image).to(tl.int64)
        count = tl.load(spans + 2 * image + 1)
    return start, count


@triton.jit
def rows_at(position, count, start, index):
    if index is None:
        row = start + position
    else:
        row = start + tl.load(index + position, mask=position < count, other=0)
    return row


@triton.jit
def index_of(index, image, length):
    """The image's own list of rows, or None."""
    if index is None:
        own = None
    else:
        own = index + image * length
    return own


@triton.jit
def _tile_mask(position, count, D: tl.constexpr, BLOCK_D: tl.constexpr):
    listed = (position < count)[:, None]
    if BLOCK_D != D:
        listed = listed & (tl.arange(0, BLOCK_D) < D)[None, :]
    return listed


@triton.jit
def load_tile(base, stride, position, count, start, index, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows ``position`` of one head, [positions, BLOCK_D]. Unlisted rows are never read: 0 * NaN is NaN."""
    row = rows_at(position, count, start, index)
    pointer = base + row[:, None] * stride + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(pointer, mask=_tile_mask(position, count, D, BLOCK_D), other=0.0)


@triton.jit
def store_tile(base, stride, position, count, start, index, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    row = rows_at(position, count, start, index)
    pointer = base + row[:, None] * stride + tl.arange(0, BLOCK_D)[None, :]
    tl.store(pointer, tile.to(base.dtype.element_ty), mask=_tile_mask(position, count, D, BLOCK_D))
