"""Rows that predict targets: where they lie, which of them count. Shared by the kernels of both likelihoods.

``hidden`` is ``[G, M, E]`` and the targets ``[G, M]``, any of them with a stride for groups and one for rows,
since a sequence that predicts its own next element is a view of two cuts. Rows are numbered through all
groups, in int64. Outputs are contiguous, so that the number of a row is its place.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of(tile, length, BLOCK_M: tl.constexpr, FLAT: tl.constexpr):
    """Numbers of a tile's rows, and their group and place in it; FLAT: in all tensors one stride steps to a
    row.

    Only the tile's first row is divided in int64: 64-bit divisions of each row would take as long as its
    softmax.
    """
    first = tl.cast(tile, tl.int64) * BLOCK_M
    lane = tl.arange(0, BLOCK_M)
    row = first + lane
    if FLAT:
        group = tl.zeros_like(row)
        place = row
    else:
        group = first // length
        inner = (first - group * length).to(length.dtype) + lane
        group += inner // length
        place = (inner % length).to(tl.int64)
    return row, group, place


@triton.jit
def targets_at(target, keep, group, place, counts, target_group, target_row, keep_group, keep_row, ignored):
    """Targets of the rows, int32 and -1 where they do not count, and which of ``counts`` do."""
    if keep is not None:
        counts = counts & (tl.load(keep + group * keep_group + place * keep_row, mask=counts, other=0) != 0)
    level = tl.load(target + group * target_group + place * target_row, mask=counts, other=0).to(tl.int64)
    if ignored is not None:
        counts = counts & (level != ignored)
    return tl.where(counts, level, -1).to(tl.int32), counts


@triton.jit
def d_loss_at(row, counts, d_losses, d_sum):
    """The gradient of each row's loss, 0 where it does not count: its own, or that of their sum, or 1."""
    if d_losses is not None:
        d_loss = tl.load(d_losses + row, mask=counts, other=0.0)
    elif d_sum is not None:
        d_loss = tl.where(counts, d_sum, 0.0)
    else:
        d_loss = tl.where(counts, 1.0, 0.0)
    return d_loss


@triton.jit
def load_rows(
    tile, rows, length, hidden, target, keep,
    hidden_group, hidden_row, target_group, target_row, keep_group, keep_row, ignored,
    E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """A tile of ``hidden``, zeros where a row does not count, its targets, and which count."""
    row, group, place = rows_of(tile, length, BLOCK_M, FLAT)
    level, counts = targets_at(
        target, keep, group, place, row < rows, target_group, target_row, keep_group, keep_row, ignored
    )
    column = tl.arange(0, BLOCK_E)
    pointer = hidden + (group * hidden_group + place * hidden_row)[:, None] + column[None, :]
    x = tl.load(pointer, mask=counts[:, None] & (column < E)[None, :], other=0.0)
    return x, level, counts


@triton.jit
def gather_counted(
    hidden, target, keep, copy, first, end, length, across,
    hidden_group, hidden_row, target_group, target_row, keep_group, keep_row, ignored,
    E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """Rows ``first`` to ``end``, a multiple of BLOCK_M first; zeros where they do not count."""
    # Where am I
    tile = tl.program_id(0) // across
    row, group, place = rows_of(first // BLOCK_M + tile, length, BLOCK_M, FLAT)
    column = (tl.program_id(0) % across) * BLOCK_E + tl.arange(0, BLOCK_E)
    exists = row < end

    # Load
    _, counts = targets_at(
        target, keep, group, place, exists, target_group, target_row, keep_group, keep_row, ignored
    )
    pointer = hidden + (group * hidden_group + place * hidden_row)[:, None] + column[None, :]
    x = tl.load(pointer, mask=counts[:, None] & (column < E)[None, :], other=0.0)

    # Store
    pointer = copy + (row - first)[:, None] * E + column[None, :]
    tl.store(pointer, x, mask=exists[:, None] & (column < E)[None, :])


@triton.jit
def scale_gradient(gradient, scaled, factor, size, BLOCK: tl.constexpr):
    """One rounding: PyTorch would first round the factor, of a mean over many rows, to a half type's zero."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(gradient + at, mask=at < size, other=0.0).to(tl.float32) * tl.load(factor)
    tl.store(scaled + at, value.to(scaled.dtype.element_ty), mask=at < size)
