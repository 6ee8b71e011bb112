"""Pixel cross-entropy between the products of a chunk: logits to losses, and to their gradient in place."""

import triton
import triton.language as tl

from imagen_fast.kernels.pixel_cross_entropy_logits import (
    logit_gradient,
    loss_of,
    softmax,
    wanted_logit,
)
from imagen_fast.kernels.predicted_rows import d_loss_at, rows_of, targets_at


@triton.jit
def cross_entropy_rows(
    logits, gradient, bias, target, keep, d_losses, d_sum, norms, losses, sums, d_bias,
    first, end, length, pitch, gradient_pitch,
    target_group, target_row, keep_group, keep_row, ignored, smoothing, z_loss, sharpness,
    V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """Rows ``first`` to ``end``, those of ``logits``; ``first`` is a multiple of BLOCK_M."""
    level = tl.arange(0, BLOCK_V)
    if bias is not None:
        b = tl.load(bias + level, mask=level < V, other=0.0).to(tl.float32)
    if d_sum is not None:
        d_sum = tl.load(d_sum)
    if sums is not None:
        total = tl.zeros((), tl.float64)
    if d_bias is not None:
        db = tl.zeros((BLOCK_V,), tl.float32)

    for tile in range(first // BLOCK_M + tl.program_id(0), tl.cdiv(end, BLOCK_M), tl.num_programs(0)):
        # Where am I
        row, group, place = rows_of(tile, length, BLOCK_M, FLAT)
        exists = row < end
        entries = (level < V)[:, None] & exists[None, :]

        # Load
        y, counts = targets_at(
            target, keep, group, place, exists, target_group, target_row, keep_group, keep_row, ignored
        )
        at = (row - first)[None, :]
        z = tl.load(logits + at * pitch + level[:, None], mask=entries, other=0.0)
        tl.debug_barrier()  # the gradient is stored where other threads' logits were

        # Compute
        if bias is not None:
            z += b[:, None]
        if V != BLOCK_V:
            z = tl.where((level < V)[:, None], z, float("-inf"))
        if d_losses is None:
            wanted = wanted_logit(z, level, y, smoothing, sharpness, norms, V)
        p, factor, log_z = softmax(z, None)
        if d_losses is None:
            loss = loss_of(log_z, wanted, counts, z_loss)
            if sums is not None:
                total += tl.sum(loss, 0).to(tl.float64)
            else:
                tl.store(losses + row, loss, mask=exists)
        if gradient is not None:
            d_loss = d_loss_at(row, counts, d_losses, d_sum)
            g = logit_gradient(p, factor, log_z, level, y, d_loss, smoothing, z_loss, sharpness, norms, V)
            if d_bias is not None:
                db += tl.sum(g, 1)
            pointer = gradient + at * gradient_pitch + level[:, None]
            tl.store(pointer, g.to(gradient.dtype.element_ty), mask=entries)

    # Store
    program = tl.program_id(0).to(tl.int64)
    if sums is not None:
        tl.store(sums + program, total)
    if d_bias is not None:
        tl.store(d_bias + program * V + level, db, mask=level < V)
