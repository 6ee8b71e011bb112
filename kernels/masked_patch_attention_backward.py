"""Backward kernels of masked-patch attention for rows of up to 256 keys: one program a head.

No kernel has atomics or anything saved forward: the forward's output would only serve
delta = rowsum(o * do), which equals rowsum(p * dp). Where all logits of a block come of one product they
are held transposed, [keys, queries]: the 64 rows that a Hopper matrix instruction wants are then keys,
and the block of queries can stay as small as registers ask.

- ``attention_backward_one_tile``: keys fit a tile of 64; dk and dv stay in registers.
- ``attention_backward_two_phase``: dq and the row statistics, a barrier, dk and dv. The first phase makes
  the whole row of logits at once, or in parts where one product would not fit.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import put_part, row_max, row_sum, scores, take_part
from imagen_fast.kernels.rows import index_of, load_tile, span, store_tile


@triton.jit
def softmax_gradient(q, k, v, do, key, k_count, scale, scale_log2):
    """p and ds [keys, queries] of queries against all their keys at once, and both row statistics."""
    s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale_log2
    s = tl.where((key < k_count)[:, None], s, float("-inf"))
    largest = tl.where(k_count > 0, tl.max(s, 0), 0.0)  # -inf - -inf would be NaN
    p = tl.exp2(s - largest[None, :])
    total = tl.where(k_count > 0, tl.sum(p, 0), 1.0)
    p = p * (1.0 / total)[None, :]
    dp = tl.dot(v, tl.trans(do), input_precision="ieee")
    delta = tl.sum(p * dp, 0)
    ds = p * (dp - delta[None, :]) * scale
    return p, ds, largest + tl.log2(total), delta


@triton.jit
def query_gradients_in_parts(
    q, do, k, v, k_row, v_row, k_count, k_start, k_own, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, and both row statistics. The logits are [queries, parts, keys]."""
    key = tl.arange(0, BLOCK_N)
    row = tl.full((BLOCK_M, ROW // BLOCK_N, BLOCK_N), float("-inf"), tl.float32)
    d_row = tl.zeros((BLOCK_M, ROW // BLOCK_N, BLOCK_N), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_tile(k, k_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
        v_tile = load_tile(v, v_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
        row = put_part(row, scores(q, k_tile, base + key, k_count, scale_log2), base // BLOCK_N)
        d_row = put_part(d_row, tl.dot(do, tl.trans(v_tile), input_precision="ieee"), base // BLOCK_N)
    largest = tl.where(k_count > 0, row_max(row), 0.0)
    p = tl.exp2(row - largest[:, None, None])
    total = tl.where(k_count > 0, row_sum(p), 1.0)
    p = p * (1.0 / total)[:, None, None]
    delta = row_sum(p * d_row)
    ds = p * (d_row - delta[:, None, None]) * scale
    dq = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_tile(k, k_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
        part = take_part(ds, base // BLOCK_N).to(k_tile.dtype)
        dq = tl.dot(part, k_tile, dq, input_precision="ieee")
    return dq, largest + tl.log2(total), delta


@triton.jit
def key_gradients(
    k_tile, v_tile, q, do, lse, delta, q_row, do_row, q_count, q_start, q_own, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys, from all queries and their saved statistics.

    Keys past the end of the list need no mask: their rows are never stored.
    """
    dk = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_tile(q, q_row, query, q_count, q_start, q_own, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_count, q_start, q_own, D, BLOCK_D)
        row_lse = tl.load(lse + query, mask=query < q_count, other=0.0)  # with do = 0 any will do
        row_delta = tl.load(delta + query, mask=query < q_count, other=0.0)
        s = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * scale_log2
        p = tl.exp2(s - row_lse[None, :])
        dv = tl.dot(p.to(do_tile.dtype), do_tile, dv, input_precision="ieee")
        dp = tl.dot(v_tile, tl.trans(do_tile), input_precision="ieee")
        ds = p * (dp - row_delta[None, :]) * scale
        dk = tl.dot(ds.to(q_tile.dtype), q_tile, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def attention_backward_one_tile(
    q, k, v, do, dq, dk, dv, q_spans, q_index, k_spans, k_index,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, do_image, do_row, do_head,
    heads, q_rows, k_rows, q_listed, k_listed, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Where am I
    head = (tl.program_id(0) % heads).to(tl.int64)
    image = (tl.program_id(0) // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
    k_start, k_count = span(k_spans, image, k_rows)
    q_own = index_of(q_index, image, q_listed)
    k_own = index_of(k_index, image, k_listed)
    q += image * q_image + head * q_head
    do += image * do_image + head * do_head
    dq += (image * q_rows * heads + head) * D
    made = (image * k_rows * heads + head) * D  # where this head's gradients start: they are contiguous
    made_row = tl.cast(heads, tl.int64) * D

    # Load
    key = tl.arange(0, BLOCK_N)
    k_tile = load_tile(k + image * k_image + head * k_head, k_row, key, k_count, k_start, k_own, D, BLOCK_D)
    v_tile = load_tile(v + image * v_image + head * v_head, v_row, key, k_count, k_start, k_own, D, BLOCK_D)

    # Compute
    dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_tile(q, q_row, query, q_count, q_start, q_own, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_count, q_start, q_own, D, BLOCK_D)
        p, ds, _lse, _delta = softmax_gradient(
            q_tile, k_tile, v_tile, do_tile, key, k_count, scale, scale_log2
        )
        ds = ds.to(q_tile.dtype)
        dv_tile = tl.dot(p.to(do_tile.dtype), do_tile, dv_tile, input_precision="ieee")
        dk_tile = tl.dot(ds, q_tile, dk_tile, input_precision="ieee")
        dq_tile = tl.trans(tl.dot(tl.trans(k_tile), ds, input_precision="ieee"))
        store_tile(dq, made_row, query, q_count, q_start, q_own, dq_tile, D, BLOCK_D)

    # Store
    store_tile(dk + made, made_row, key, k_count, k_start, k_own, dk_tile, D, BLOCK_D)
    store_tile(dv + made, made_row, key, k_count, k_start, k_own, dv_tile, D, BLOCK_D)


@triton.jit
def attention_backward_two_phase(
    q, k, v, do, dq, dk, dv, statistics, q_spans, q_index, k_spans, k_index,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, do_image, do_row, do_head,
    heads, q_rows, k_rows, q_listed, k_listed, q_longest, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ROW: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    # Where am I
    head = (tl.program_id(0) % heads).to(tl.int64)
    image = (tl.program_id(0) // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
    k_start, k_count = span(k_spans, image, k_rows)
    q_own = index_of(q_index, image, q_listed)
    k_own = index_of(k_index, image, k_listed)
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    do += image * do_image + head * do_head
    dq += (image * q_rows * heads + head) * D
    made = (image * k_rows * heads + head) * D  # where this head's gradients start: they are contiguous
    made_row = tl.cast(heads, tl.int64) * D
    lse = statistics + tl.program_id(0).to(tl.int64) * 2 * q_longest
    delta = lse + q_longest

    # First phase, rows of all keys: load, compute and store dq and the statistics of each row.
    if AT_ONCE:
        every = tl.arange(0, ROW)
        k_all = load_tile(k, k_row, every, k_count, k_start, k_own, D, BLOCK_D)
        v_all = load_tile(v, v_row, every, k_count, k_start, k_own, D, BLOCK_D)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_tile(q, q_row, query, q_count, q_start, q_own, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_count, q_start, q_own, D, BLOCK_D)
        if AT_ONCE:
            _p, ds, row_lse, row_delta = softmax_gradient(
                q_tile, k_all, v_all, do_tile, every, k_count, scale, scale_log2
            )
            dq_tile = tl.trans(tl.dot(tl.trans(k_all), ds.to(q_tile.dtype), input_precision="ieee"))
        else:
            dq_tile, row_lse, row_delta = query_gradients_in_parts(
                q_tile, do_tile, k, v, k_row, v_row, k_count, k_start, k_own,
                scale, scale_log2, D, BLOCK_D, BLOCK_M, BLOCK_N, ROW,
            )  # fmt: skip
        store_tile(dq, made_row, query, q_count, q_start, q_own, dq_tile, D, BLOCK_D)
        tl.store(lse + query, row_lse, mask=query < q_count)
        tl.store(delta + query, row_delta, mask=query < q_count)

    # The statistics were written by other threads of this program.
    tl.debug_barrier()

    # Second phase, a block of keys at a time: the second read of q and do comes from L2.
    for first in range(0, k_count, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k, k_row, key, k_count, k_start, k_own, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key, k_count, k_start, k_own, D, BLOCK_D)
        dk_tile, dv_tile = key_gradients(
            k_tile, v_tile, q, do, lse, delta, q_row, do_row, q_count, q_start, q_own,
            scale, scale_log2, D, BLOCK_D, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        store_tile(dk + made, made_row, key, k_count, k_start, k_own, dk_tile, D, BLOCK_D)
        store_tile(dv + made, made_row, key, k_count, k_start, k_own, dv_tile, D, BLOCK_D)
