"""Where the rows of an image lie, and how tiles of them are moved. Shared by the attention kernels.

A tensor is ``[B, N, H, D]``, or packed ``[T, H, D]`` with an image stride of 0. An image's i-th row,
i < count, is row ``start + i``, or ``start + index[i]``. Rows are int64: a stride multiplies them.

A kernel holds all it knows of an image's queries, or of its keys, as one side: ``(start, count, index,
list_start, places)``, with None for a table that was not given; the image's list begins at ``list_start``.
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
def rows_at(position, side):
    start, count, index, list_start, _places = side
    if index is None:
        row = start + position
    else:
        row = start + tl.load(index + list_start + position, mask=position < count, other=0)
    return row


@triton.jit
def places_at(position, side):
    """Where on the grid the rows lie, int64: what ``places`` says of a row of the tensor, or its number."""
    _start, count, _index, _list_start, places = side
    place = rows_at(position, side)
    if places is not None:
        place = tl.load(places + place, mask=position < count, other=0).to(tl.int64)
    return place


@triton.jit
def tile_mask(position, side, D: tl.constexpr, BLOCK_D: tl.constexpr):
    _start, count, _index, _list_start, _places = side
    listed = (position < count)[:, None]
    if BLOCK_D != D:
        listed = listed & (tl.arange(0, BLOCK_D) < D)[None, :]
    return listed


@triton.jit
def tile_pointer(base, stride, position, side, BLOCK_D: tl.constexpr):
    return base + rows_at(position, side)[:, None] * stride + tl.arange(0, BLOCK_D)[None, :]


@triton.jit
def load_tile(base, stride, position, side, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows ``position`` of one head, [positions, BLOCK_D]. Unlisted rows are never read: 0 * NaN is NaN."""
    pointer = tile_pointer(base, stride, position, side, BLOCK_D)
    return tl.load(pointer, mask=tile_mask(position, side, D, BLOCK_D), other=0.0)


@triton.jit
def store_tile(base, stride, position, side, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    pointer = tile_pointer(base, stride, position, side, BLOCK_D)
    tl.store(pointer, tile.to(base.dtype.element_ty), mask=tile_mask(position, side, D, BLOCK_D))
