"""The kernel of the logistic mixture whose weight stays on the chip: rows go in, losses and gradients come
out.

Programs take tiles of rows in turn, as those of ``pixel_cross_entropy_fused.py``. Shares, means and scales
are three products of the same tile, so that each thread finds the three numbers of a logistic in its own
registers; rows are the first axis, since there are fewer logistics than a matrix instruction has rows, and so
are columns in the weight's gradient.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.pixel_logistic_mixture_logistics import mixture
from imagen_fast.kernels.predicted_rows import d_loss_at, load_rows


@triton.jit
def load_third(weight, third, K: tl.constexpr, E: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr):
    """[BLOCK_K, BLOCK_E]: those of the shares, the means or the scales."""
    k, column = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_E)
    pointer = weight + (third * K + k)[:, None] * E + column[None, :]
    return tl.load(pointer, mask=(k < K)[:, None] & (column < E)[None, :], other=0.0)


@triton.jit
def project(x, w, bias, third, other, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """One number of each logistic [rows, BLOCK_K]; ``other`` past the last."""
    k = tl.arange(0, BLOCK_K)
    z = tl.dot(x, tl.trans(w))
    if bias is not None:
        z += tl.load(bias + third * K + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
    return tl.where((k < K)[None, :], z, other)


@triton.jit
def store_third(
    partial, third, transposed, K: tl.constexpr, E: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr
):
    k, column = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_E)
    pointer = partial + (third * K + k)[None, :] * E + column[:, None]
    tl.store(pointer, transposed, mask=(k < K)[None, :] & (column < E)[:, None])


@triton.jit
def logistic_mixture_fused(
    hidden, weight, bias, target, keep, d_losses, d_sum, losses, sums, d_hidden, d_weight, d_bias,
    rows, length, hidden_group, hidden_row, target_group, target_row, keep_group, keep_row, ignored,
    K: tl.constexpr, E: tl.constexpr, LEVELS: tl.constexpr, LEAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK_E)
    k = tl.arange(0, BLOCK_K)
    w_share = load_third(weight, 0, K, E, BLOCK_K, BLOCK_E)
    w_mean = load_third(weight, 1, K, E, BLOCK_K, BLOCK_E)
    w_scale = load_third(weight, 2, K, E, BLOCK_K, BLOCK_E)
    if d_sum is not None:
        d_sum = tl.load(d_sum)
    if sums is not None:
        total = tl.zeros((), tl.float64)
    if d_weight is not None:
        dw_share = tl.zeros((BLOCK_E, BLOCK_K), tl.float32)
        dw_mean = tl.zeros((BLOCK_E, BLOCK_K), tl.float32)
        dw_scale = tl.zeros((BLOCK_E, BLOCK_K), tl.float32)
    if d_bias is not None:
        db_share = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        db_mean = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        db_scale = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)

    programs = tl.num_programs(0)
    x_next, y_next, counts_next = load_rows(
        tl.program_id(0), rows, length, hidden, target, keep,
        hidden_group, hidden_row, target_group, target_row, keep_group, keep_row, ignored,
        E, BLOCK_M, BLOCK_E, FLAT,
    )  # fmt: skip
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_M), programs):
        # Where am I
        row = tl.cast(tile, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        exists = row < rows

        # Load: the next tile is on its way while this one is computed.
        x, y, counts = x_next, y_next, counts_next
        x_next, y_next, counts_next = load_rows(
            tile + programs, rows, length, hidden, target, keep,
            hidden_group, hidden_row, target_group, target_row, keep_group, keep_row, ignored,
            E, BLOCK_M, BLOCK_E, FLAT,
        )  # fmt: skip

        # Compute
        share = project(x, w_share, bias, 0, float("-inf"), K, BLOCK_K)
        mean = project(x, w_mean, bias, 1, 0.0, K, BLOCK_K)
        log_scale = project(x, w_scale, bias, 2, 0.0, K, BLOCK_K)
        loss, d_share, d_mean, d_scale = mixture(share, mean, log_scale, y, counts, LEVELS, LEAST)
        if sums is not None:
            total += tl.sum(loss, 0).to(tl.float64)
        if losses is not None:
            tl.store(losses + row, loss, mask=exists)
        if d_hidden is not None or d_weight is not None:
            d_loss = d_loss_at(row, counts, d_losses, d_sum)[:, None]
            d_share, d_mean, d_scale = d_share * d_loss, d_mean * d_loss, d_scale * d_loss
            if d_bias is not None:
                db_share += d_share
                db_mean += d_mean
                db_scale += d_scale
            d_share, d_mean, d_scale = d_share.to(x.dtype), d_mean.to(x.dtype), d_scale.to(x.dtype)
            if d_weight is not None:
                dw_share = tl.dot(tl.trans(x), d_share, dw_share)
                dw_mean = tl.dot(tl.trans(x), d_mean, dw_mean)
                dw_scale = tl.dot(tl.trans(x), d_scale, dw_scale)
            if d_hidden is not None:
                dx = tl.dot(d_share, w_share)
                dx = tl.dot(d_mean, w_mean, dx)
                dx = tl.dot(d_scale, w_scale, dx).to(x.dtype)
                pointer = d_hidden + row[:, None] * E + column[None, :]
                tl.store(pointer, dx, mask=exists[:, None] & (column < E)[None, :])

    # Store
    program = tl.program_id(0).to(tl.int64)
    if sums is not None:
        tl.store(sums + program, total)
    if d_weight is not None:
        d_weight += program * 3 * K * E
        store_third(d_weight, 0, dw_share, K, E, BLOCK_K, BLOCK_E)
        store_third(d_weight, 1, dw_mean, K, E, BLOCK_K, BLOCK_E)
        store_third(d_weight, 2, dw_scale, K, E, BLOCK_K, BLOCK_E)
    if d_bias is not None:
        d_bias += program * 3 * K
        tl.store(d_bias + k, tl.sum(db_share, 0), mask=k < K)
        tl.store(d_bias + K + k, tl.sum(db_mean, 0), mask=k < K)
        tl.store(d_bias + 2 * K + k, tl.sum(db_scale, 0), mask=k < K)
