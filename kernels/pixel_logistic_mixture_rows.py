"""The logistic mixture between the products of a chunk: numbers to losses, and to gradients in place."""

import triton
import triton.language as tl

from imagen_fast.kernels.pixel_logistic_mixture_logistics import mixture
from imagen_fast.kernels.predicted_rows import d_loss_at, rows_of, targets_at


@triton.jit
def logistic_mixture_rows(
    logits, gradient, bias, target, keep, d_losses, d_sum, losses, sums, d_bias,
    first, end, length, pitch, gradient_pitch,
    target_group, target_row, keep_group, keep_row, ignored,
    K: tl.constexpr, LEVELS: tl.constexpr, LEAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """Rows ``first`` to ``end``, those of ``logits``; ``first`` is a multiple of BLOCK_M."""
    k = tl.arange(0, BLOCK_K)
    if bias is not None:
        b_share = tl.load(bias + k, mask=k < K, other=0.0).to(tl.float32)
        b_mean = tl.load(bias + K + k, mask=k < K, other=0.0).to(tl.float32)
        b_scale = tl.load(bias + 2 * K + k, mask=k < K, other=0.0).to(tl.float32)
    if d_sum is not None:
        d_sum = tl.load(d_sum)
    if sums is not None:
        total = tl.zeros((), tl.float64)
    if d_bias is not None:
        db_share = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        db_mean = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        db_scale = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)

    for tile in range(first // BLOCK_M + tl.program_id(0), tl.cdiv(end, BLOCK_M), tl.num_programs(0)):
        # Where am I
        row, group, place = rows_of(tile, length, BLOCK_M, FLAT)
        exists = row < end
        entries = exists[:, None] & (k < K)[None, :]

        # Load
        y, counts = targets_at(
            target, keep, group, place, exists, target_group, target_row, keep_group, keep_row, ignored
        )
        pointer = logits + (row - first)[:, None] * pitch + k[None, :]
        share = tl.load(pointer, mask=entries, other=0.0)
        mean = tl.load(pointer + K, mask=entries, other=0.0)
        log_scale = tl.load(pointer + 2 * K, mask=entries, other=0.0)
        tl.debug_barrier()  # the gradient is stored where other threads' logits were

        # Compute
        if bias is not None:
            share += b_share[None, :]
            mean += b_mean[None, :]
            log_scale += b_scale[None, :]
        share = tl.where((k < K)[None, :], share, float("-inf"))
        loss, d_share, d_mean, d_scale = mixture(share, mean, log_scale, y, counts, LEVELS, LEAST)
        if sums is not None:
            total += tl.sum(loss, 0).to(tl.float64)
        if losses is not None:
            tl.store(losses + row, loss, mask=exists)
        if gradient is not None:
            d_loss = d_loss_at(row, counts, d_losses, d_sum)[:, None]
            d_share, d_mean, d_scale = d_share * d_loss, d_mean * d_loss, d_scale * d_loss
            if d_bias is not None:
                db_share += d_share
                db_mean += d_mean
                db_scale += d_scale
            kind = gradient.dtype.element_ty
            pointer = gradient + (row - first)[:, None] * gradient_pitch + k[None, :]
            tl.store(pointer, d_share.to(kind), mask=entries)
            tl.store(pointer + K, d_mean.to(kind), mask=entries)
            tl.store(pointer + 2 * K, d_scale.to(kind), mask=entries)

    # Store
    program = tl.program_id(0).to(tl.int64)
    if sums is not None:
        tl.store(sums + program, total)
    if d_bias is not None:
        d_bias += program * 3 * K
        tl.store(d_bias + k, tl.sum(db_share, 0), mask=k < K)
        tl.store(d_bias + K + k, tl.sum(db_mean, 0), mask=k < K)
        tl.store(d_bias + 2 * K + k, tl.sum(db_scale, 0), mask=k < K)
