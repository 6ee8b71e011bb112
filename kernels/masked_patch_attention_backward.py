"""Backward kernel of masked-patch attention for 65 to 256 keys: dq and the row statistics, then dk and dv.

Neither this nor any other backward kernel has atomics or anything saved forward: the forward's output would
only serve delta = rowsum(o * do), which equals rowsum(p * dp). Where one product makes all logits of a block
they are held transposed, [keys, queries]: the 64 rows that a Hopper matrix instruction wants are then keys,
and the block of queries can stay as small as registers ask.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import (
    LOG2_E,
    bias_of,
    biased,
    put_part,
    row_max,
    row_sum,
    scores,
    softmax_gradient,
    take_part,
)
from imagen_fast.kernels.rotary import load_turned, store_turned
from imagen_fast.kernels.rows import load_tile, span, store_tile


@triton.jit
def query_gradients_in_parts(
    q, do, k, v, k_row, v_row, query, q_side, k_side, turn, scale, share, bias, bias_row,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, and both row statistics. The logits are [queries, parts, keys]."""
    k_count = k_side[1]
    key = tl.arange(0, BLOCK_N)
    row = tl.full((BLOCK_M, ROW // BLOCK_N, BLOCK_N), float("-inf"), tl.float32)
    d_row = tl.zeros((BLOCK_M, ROW // BLOCK_N, BLOCK_N), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v, v_row, base + key, k_side, D, BLOCK_D)
        s = scores(q, k_tile, query, q_side, base + key, k_side, scale * LOG2_E, bias, bias_row)
        row = put_part(row, s, base // BLOCK_N)
        d_row = put_part(d_row, tl.dot(do, tl.trans(v_tile), input_precision="ieee"), base // BLOCK_N)
    largest = tl.where(k_count > 0, row_max(row), 0.0)
    p = tl.exp2(row - largest[:, None, None])
    total = tl.where(k_count > 0, row_sum(p), 1.0)
    p = p * (1.0 / total)[:, None, None]
    delta = row_sum(p * d_row)
    ds = p * (d_row - delta[:, None, None]) * scale
    dq = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
        part = take_part(ds, base // BLOCK_N).to(k_tile.dtype)
        dq = tl.dot(part, k_tile, dq, input_precision="ieee")
    return dq, largest + tl.log2(total * share), delta


@triton.jit
def key_gradients(
    k_tile, v_tile, key, k_side, q, do, lse, delta, q_row, do_row, q_side, turn,
    scale, share, bias, bias_row,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys, from all queries and their saved statistics.

    Keys past the end of the list need no mask: their rows are never stored.
    """
    q_count = q_side[1]
    dk = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_turned(q, q_row, query, q_side, turn, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_side, D, BLOCK_D)
        row_lse = tl.load(lse + query, mask=query < q_count, other=0.0)  # with do = 0 any will do
        row_delta = tl.load(delta + query, mask=query < q_count, other=0.0)
        s = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * (scale * LOG2_E)
        s = biased(s, bias, bias_row, query, q_side, key, k_side, True)
        p = tl.exp2(s - row_lse[None, :])  # over the share
        dv = tl.dot(p.to(do_tile.dtype), do_tile, dv, input_precision="ieee")
        dp = tl.dot(v_tile, tl.trans(do_tile), input_precision="ieee")
        ds = p * (dp - row_delta[None, :]) * (scale * share)
        dk = tl.dot(ds.to(q_tile.dtype), q_tile, dk, input_precision="ieee")
    return dk, dv * share


@triton.jit
def attention_backward_two_phase(
    q, k, v, do, dq, dk, dv, statistics,
    q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    do_image, do_row, do_head, heads, q_rows, k_rows, q_listed, k_listed, q_longest, scale, share,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ROW: tl.constexpr,  # keys of a whole row
    AT_ONCE: tl.constexpr,  # whether one product makes its logits, or products of BLOCK_N keys
):  # fmt: skip
    # Where am I
    head = (tl.program_id(0) % heads).to(tl.int64)
    image = (tl.program_id(0) // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
    q_count = min(q_count, q_longest)  # a bound that was too low must not write elsewhere
    k_start, k_count = span(k_spans, image, k_rows)
    q_side = (q_start, q_count, q_index, image * q_listed, q_places)
    k_side = (k_start, k_count, k_index, image * k_listed, k_places)
    turn = (cos, sin)
    bias = bias_of(bias, head, bias_head)
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
        k_all = load_turned(k, k_row, every, k_side, turn, D, BLOCK_D)
        v_all = load_tile(v, v_row, every, k_side, D, BLOCK_D)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_turned(q, q_row, query, q_side, turn, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_side, D, BLOCK_D)
        if AT_ONCE:
            _p, ds, row_lse, row_delta = softmax_gradient(
                q_tile, k_all, v_all, do_tile, query, q_side, every, k_side, scale, share, bias, bias_row
            )
            dq_tile = tl.trans(tl.dot(tl.trans(k_all), ds.to(q_tile.dtype), input_precision="ieee"))
        else:
            dq_tile, row_lse, row_delta = query_gradients_in_parts(
                q_tile, do_tile, k, v, k_row, v_row, query, q_side, k_side, turn,
                scale, share, bias, bias_row, D, BLOCK_D, BLOCK_M, BLOCK_N, ROW,
            )  # fmt: skip
        store_turned(dq, made_row, query, q_side, turn, dq_tile, D, BLOCK_D)
        tl.store(lse + query, row_lse, mask=query < q_count)
        tl.store(delta + query, row_delta, mask=query < q_count)

    # The statistics were written by other threads of this program.
    tl.debug_barrier()

    # Second phase, a block of keys at a time: the second read of q and do comes from L2.
    for first in range(0, k_count, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        k_tile = load_turned(k, k_row, key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key, k_side, D, BLOCK_D)
        dk_tile, dv_tile = key_gradients(
            k_tile, v_tile, key, k_side, q, do, lse, delta, q_row, do_row, q_side, turn,
            scale, share, bias, bias_row, D, BLOCK_D, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        store_turned(dk + made, made_row, key, k_side, turn, dk_tile, D, BLOCK_D)
        store_tile(dv + made, made_row, key, k_side, dv_tile, D, BLOCK_D)
