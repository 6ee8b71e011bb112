"""Backward kernels of causal pixel attention: dq by tiles of queries, then dk and dv by keys.

Neither adds to what another program wrote: no atomics, and the same bits in every run. The price is that the
logits and dp are made twice. The gradients of the logits are kept without the scale, which is applied to the
sums: one product less a pair, and in float16 they stay further above its smallest normal number.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.causal_pixel_attention_tiles import (
    all_seen,
    as_column,
    as_row,
    pixels_of,
    seeing_tiles,
    seen_tiles,
    sees,
    tile_at,
)
from imagen_fast.kernels.masked_patch_attention_logits import LOG2_E
from imagen_fast.kernels.rows import load_tile, store_tile


@triton.jit
def causal_attention_backward_queries(
    q, k, v, out, do, dq, statistics, delta,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, do_image, do_row, do_head,
    heads, height, width, above, left, right, prefix, leading, blocks, across, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
    FLAT: tl.constexpr, LIMITED: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    # Where am I: as in the forward, those that see most come first.
    program = tl.program_id(0)
    tile = blocks - 1 - program % blocks
    line, column = tile // across, tile % across
    head = ((program // blocks) % heads).to(tl.int64)
    image = (program // blocks // heads).to(tl.int64)
    window = (height, width, above, left, right, prefix)
    rows = height * width
    side = (tl.full((), 0, tl.int64), rows, None, 0, None)
    walk = seen_tiles(line, column, window, leading, Q_H, Q_W, K_H, K_W)
    scale_log2 = scale * LOG2_E
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    made = (image * rows * heads + head) * D  # where this head begins in contiguous tensors
    made_row = tl.cast(heads, tl.int64) * D

    # Load
    query = pixels_of(line, column, height, width, Q_H, Q_W)
    listed = query[2] < rows
    statistics += (image * heads + head) * 2 * rows + query[2]
    q_tile = load_tile(q + image * q_image + head * q_head, q_row, query[2], side, D, BLOCK_D)
    do_tile = load_tile(do + image * do_image + head * do_head, do_row, query[2], side, D, BLOCK_D)
    o_tile = load_tile(out + made, made_row, query[2], side, D, BLOCK_D)
    largest = tl.load(statistics, mask=listed, other=0.0)
    total = tl.load(statistics + rows, mask=listed, other=1.0)

    # Compute
    row_delta = tl.sum(o_tile.to(tl.float32) * do_tile.to(tl.float32), 1)
    dq_tile = tl.zeros((Q_H * Q_W, BLOCK_D), tl.float32)
    rest = tl.zeros((Q_H * Q_W,), tl.float32)
    k_mean = tl.zeros((Q_H * Q_W, BLOCK_D), tl.float32)
    for step in range(walk[6]):
        k_line, k_column = tile_at(walk, step)
        key = pixels_of(k_line, k_column, height, width, K_H, K_W)
        k_tile = load_tile(k, k_row, key[2], side, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key[2], side, D, BLOCK_D)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scale_log2
        if not all_seen(line, column, k_line, k_column, window, Q_H, Q_W, K_H, K_W, FLAT, LIMITED, PREFIX):
            seen = sees(as_column(query), as_row(key), window, FLAT, LIMITED, PREFIX)
            s = tl.where(seen, s, float("-inf"))
        p = tl.exp2(s - largest[:, None])  # times the total
        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee")
        ds = p * (dp - row_delta[:, None])
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision="ieee")
        if q.dtype.element_ty == tl.float32:
            rest += tl.sum(ds, 1)
            k_mean = tl.dot(p, k_tile, k_mean, input_precision="ieee")

    # Store
    if q.dtype.element_ty == tl.float32:
        # rowsum(do * out) is rowsum(p * dp) but for its own roundings, which a row of few keys would show.
        rest = rest / total
        row_delta += rest
        dq_tile -= rest[:, None] * k_mean
    dq_tile = dq_tile * (scale / total)[:, None]
    store_tile(dq + made, made_row, query[2], side, dq_tile, D, BLOCK_D)
    tl.store(delta + (image * heads + head) * rows + query[2], row_delta, mask=listed)


@triton.jit
def causal_attention_backward_keys(
    q, k, v, do, dk, dv, statistics, delta,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, do_image, do_row, do_head,
    heads, height, width, above, left, right, prefix, blocks, across, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
    FLAT: tl.constexpr, LIMITED: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    # Where am I: the first tiles are seen by most.
    program = tl.program_id(0)
    line, column = program % blocks // across, program % blocks % across
    head = ((program // blocks) % heads).to(tl.int64)
    image = (program // blocks // heads).to(tl.int64)
    window = (height, width, above, left, right, prefix)
    rows = height * width
    side = (tl.full((), 0, tl.int64), rows, None, 0, None)
    walk = seeing_tiles(line, column, window, Q_H, Q_W, K_H, K_W)
    scale_log2 = scale * LOG2_E
    q += image * q_image + head * q_head
    do += image * do_image + head * do_head
    statistics += (image * heads + head) * 2 * rows
    delta += (image * heads + head) * rows

    # Load
    key = pixels_of(line, column, height, width, K_H, K_W)
    k_tile = load_tile(k + image * k_image + head * k_head, k_row, key[2], side, D, BLOCK_D)
    v_tile = load_tile(v + image * v_image + head * v_head, v_row, key[2], side, D, BLOCK_D)

    # Compute, [keys, queries]: the 64 rows that a Hopper matrix instruction wants are keys.
    dk_tile = tl.zeros((K_H * K_W, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((K_H * K_W, BLOCK_D), tl.float32)
    for step in range(walk[6]):
        q_line, q_column = tile_at(walk, step)
        query = pixels_of(q_line, q_column, height, width, Q_H, Q_W)
        listed = query[2] < rows
        q_tile = load_tile(q, q_row, query[2], side, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query[2], side, D, BLOCK_D)
        largest = tl.load(statistics + query[2], mask=listed, other=0.0)  # with do = 0 any will do
        total = tl.load(statistics + rows + query[2], mask=listed, other=1.0)
        row_delta = tl.load(delta + query[2], mask=listed, other=0.0)
        s = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * scale_log2
        if not all_seen(q_line, q_column, line, column, window, Q_H, Q_W, K_H, K_W, FLAT, LIMITED, PREFIX):
            seen = sees(as_row(query), as_column(key), window, FLAT, LIMITED, PREFIX)
            s = tl.where(seen, s, float("-inf"))
        if q.dtype.element_ty == tl.float32:
            p = tl.exp2(s - largest[None, :]) * (1.0 / total)[None, :]
        else:
            # One product less a pair; but the sum has no more digits than the logarithm of a large total.
            p = tl.exp2(s - (largest + tl.log2(total))[None, :])
        dv_tile = tl.dot(p.to(do_tile.dtype), do_tile, dv_tile, input_precision="ieee")
        dp = tl.dot(v_tile, tl.trans(do_tile), input_precision="ieee")
        ds = p * (dp - row_delta[None, :])
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision="ieee")

    # Store
    made = (image * rows * heads + head) * D
    made_row = tl.cast(heads, tl.int64) * D
    store_tile(dk + made, made_row, key[2], side, dk_tile * scale, D, BLOCK_D)
    store_tile(dv + made, made_row, key[2], side, dv_tile, D, BLOCK_D)
