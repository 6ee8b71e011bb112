"""The kernel of pixel cross-entropy whose weight stays on the chip: logits and gradients are never in memory.

As many programs as the chip holds take tiles of rows in turn, so that the weight is read once a program, and
the weight's gradient stays in its registers until the end: one partial sum a program, added in a fixed order
afterwards.

What the kernel makes is what it is given room for: losses of rows, or a partial sum a program; the
log-normaliser; the gradients, of ``d_sum`` times the sum of the losses or, with ``d_losses`` and the saved
log-normaliser, of weighted ones.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.pixel_cross_entropy_logits import (
    logit_gradient,
    loss_of,
    softmax,
    wanted_logit,
)
from imagen_fast.kernels.predicted_rows import d_loss_at, load_rows


@triton.jit
def cross_entropy_fused(
    hidden, weight, bias, target, keep, d_losses, d_sum, log_z_saved, norms,
    losses, log_z_made, sums, d_hidden, d_weight, d_bias,
    rows, length, hidden_group, hidden_row, target_group, target_row, keep_group, keep_row,
    ignored, smoothing, z_loss, sharpness,
    V: tl.constexpr, E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_E: tl.constexpr,
    FLAT: tl.constexpr,
):  # fmt: skip
    level = tl.arange(0, BLOCK_V)
    column = tl.arange(0, BLOCK_E)
    entries = (level < V)[:, None] & (column < E)[None, :]
    w = tl.load(weight + level[:, None] * E + column[None, :], mask=entries, other=0.0)
    if bias is not None:
        b = tl.load(bias + level, mask=level < V, other=float("-inf")).to(tl.float32)
    elif V != BLOCK_V:
        b = tl.where(level < V, 0.0, float("-inf"))
    if d_sum is not None:  # read here: within the loop it would spill on Hopper, with all options
        d_sum = tl.load(d_sum)
    if sums is not None:  # in float64: the losses of a large batch outgrow fp32's digits
        total = tl.zeros((), tl.float64)
    if d_weight is not None:
        dw = tl.zeros((BLOCK_V, BLOCK_E), tl.float32)
    if d_bias is not None:
        db = tl.zeros((BLOCK_V,), tl.float32)

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
        known = None
        if log_z_saved is not None:
            known = tl.load(log_z_saved + row, mask=exists, other=0.0)

        # Compute
        z = tl.dot(w, tl.trans(x))
        if bias is not None or V != BLOCK_V:
            z += b[:, None]
        if d_losses is None:
            wanted = wanted_logit(z, level, y, smoothing, sharpness, norms, V)
        p, factor, log_z = softmax(z, known)
        if d_losses is None:
            loss = loss_of(log_z, wanted, counts, z_loss)
            if sums is not None:
                total += tl.sum(loss, 0).to(tl.float64)
            else:
                tl.store(losses + row, loss, mask=exists)
                tl.store(log_z_made + row, log_z, mask=exists)
        if d_hidden is not None or d_weight is not None:
            d_loss = d_loss_at(row, counts, d_losses, d_sum)
            g = logit_gradient(p, factor, log_z, level, y, d_loss, smoothing, z_loss, sharpness, norms, V)
            if d_bias is not None:
                db += tl.sum(g, 1)
            g = g.to(x.dtype)
            if d_weight is not None:
                dw = tl.dot(g, x, dw)
            if d_hidden is not None:
                dx = tl.trans(tl.dot(tl.trans(w), g)).to(x.dtype)  # 64 or more columns come first
                pointer = d_hidden + row[:, None] * E + column[None, :]
                tl.store(pointer, dx, mask=exists[:, None] & (column < E)[None, :])

    # Store
    program = tl.program_id(0).to(tl.int64)
    if sums is not None:
        tl.store(sums + program, total)
    if d_weight is not None:
        tl.store(d_weight + program * V * E + level[:, None] * E + column[None, :], dw, mask=entries)
    if d_bias is not None:
        tl.store(d_bias + program * V + level, db, mask=level < V)
