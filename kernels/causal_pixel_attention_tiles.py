"""Tiles of pixels: who sees whom, in which order a program walks them, who needs a mask.

A tile holds TILE_H lines of TILE_W pixels, as rows of a product; tiles are numbered in raster order. What a
tile of queries sees is a rectangle of tiles of keys, since what a query sees is one but for the end of its
own line: the last line of tiles may be shorter. The tiles that hold the prefix come before all others in the
tiles' order. So a walk is the first ``leading`` tiles, and then the rectangle without what was met already,
which can only be missing at its beginning. From a tile of keys all of this looks turned by 180 degrees:
there the first line of tiles may be shorter.

A walk is ``(leading, across, line, column, columns, skipped, count)``: the number of tiles before the
rectangle, of tiles in a line of the grid, where the rectangle begins and how many columns it has, how many of
its tiles are left out at its beginning, and all tiles of the walk.
"""

import triton
import triton.language as tl


@triton.jit
def pixels_of(line, column, height, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Line, column and raster number of a tile's pixels; outside the grid it is the first past it."""
    lane = tl.arange(0, TILE_H * TILE_W)
    y = line * TILE_H + lane // TILE_W
    x = column * TILE_W + lane % TILE_W
    return y, x, tl.where((y < height) & (x < width), y * width + x, height * width)


@triton.jit
def as_column(pixels):
    y, x, number = pixels
    return y[:, None], x[:, None], number[:, None]


@triton.jit
def as_row(pixels):
    y, x, number = pixels
    return y[None, :], x[None, :], number[None, :]


@triton.jit
def tile_at(walk, step):
    """Line and column of the tile that a walk meets at a step."""
    leading, across, line, column, columns, skipped, _count = walk
    first = step < leading
    step = tl.where(first, step, step - leading + skipped)
    columns = tl.where(first, across, columns)
    return tl.where(first, 0, line) + step // columns, tl.where(first, 0, column) + step % columns


@triton.jit
def seen_tiles(
    line, column, window, leading,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
):  # fmt: skip
    """The walk over the tiles of keys that a tile of queries sees."""
    height, width, above, left, right, _prefix = window
    top, bottom = line * Q_H, tl.minimum(line * Q_H + Q_H, height) - 1
    west, east = column * Q_W, tl.minimum(column * Q_W + Q_W, width) - 1
    across = tl.cdiv(width, K_W)
    first_column = tl.maximum(west - left, 0) // K_W
    last_column = tl.minimum(east + right, width - 1) // K_W
    columns = last_column - first_column + 1
    # Keys of the lowest query's own line are seen up to the query itself.
    last_line = bottom // K_H
    short = tl.where(last_line * K_H == bottom, last_column - east // K_W, 0)
    first_line = tl.maximum(top - above, 0) // K_H
    met = first_line <= leading // across
    first_line = tl.maximum(first_line, leading // across)
    skipped = tl.where(met, tl.minimum(tl.maximum(leading % across - first_column, 0), columns), 0)
    count = tl.maximum((last_line - first_line + 1) * columns - skipped - short, 0)
    return leading, across, first_line, first_column, columns, skipped, leading + count


@triton.jit
def seeing_tiles(
    line, column, window,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
):  # fmt: skip
    """The walk over the tiles of queries that see a tile of keys."""
    height, width, above, left, right, prefix = window
    top, bottom = line * K_H, tl.minimum(line * K_H + K_H, height) - 1
    west, east = column * K_W, tl.minimum(column * K_W + K_W, width) - 1
    across = tl.cdiv(width, Q_W)
    by_all = top * width + west < prefix
    first_line = tl.where(by_all, 0, top // Q_H)
    last_line = tl.where(by_all, height - 1, tl.minimum(bottom + above, height - 1)) // Q_H
    first_column = tl.where(by_all, 0, tl.maximum(west - right, 0)) // Q_W
    last_column = tl.where(by_all, width - 1, tl.minimum(east + left, width - 1)) // Q_W
    columns = last_column - first_column + 1
    # Queries in the highest key's own line see nothing to their right.
    lowest = tl.minimum(first_line * Q_H + Q_H, height) - 1
    skipped = tl.where((lowest == top) & (by_all == 0), west // Q_W - first_column, 0)
    count = (last_line - first_line + 1) * columns - skipped
    return 0, across, first_line, first_column, columns, skipped, count


@triton.jit
def all_seen(
    q_line, q_column, k_line, k_column, window,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
    FLAT: tl.constexpr, LIMITED: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    """Whether every query of a tile sees every key of another, so that no mask is needed."""
    _height, width, above, left, right, prefix = window
    j, k, y, x = q_line * Q_H, q_column * Q_W, k_line * K_H, k_column * K_W
    if FLAT:
        seen = x + K_W - 1 <= k
    else:
        seen = (y + K_H - 1 + (right > 0) <= j) & (x + K_W - 1 <= tl.minimum(k + right, width - 1))
    if LIMITED:
        seen = seen & (x >= k + Q_W - 1 - left)
        if not FLAT:
            seen = seen & (y >= j + Q_H - 1 - above)
    if PREFIX:
        seen = seen | ((x + K_W <= width) & ((y + K_H - 1) * width + x + K_W <= prefix))
    return seen


@triton.jit
def sees(
    query, key, window, FLAT: tl.constexpr, LIMITED: tl.constexpr, PREFIX: tl.constexpr
):  # fmt: skip
    """The mask of one tile: pixels of queries and of keys as a column and a row, or the other way round.

    The raster numbers keep keys outside the grid from being seen; what queries outside it see is never used.
    """
    _height, _width, above, left, right, prefix = window
    j, k, i = query
    y, x, n = key
    seen = n <= i
    if not FLAT:
        seen = seen & (x <= k + right)
    if LIMITED:
        seen = seen & (x >= k - left)
        if not FLAT:
            seen = seen & (y >= j - above)
    if PREFIX:
        seen = seen | (n < prefix)
    return seen
