"""Backward kernels of masked-patch attention for rows of any length: dq and statistics, then dk and dv."""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_backward import key_gradients
from imagen_fast.kernels.masked_patch_attention_logits import LOG2_E, bias_of, scores
from imagen_fast.kernels.rotary import load_turned, store_turned
from imagen_fast.kernels.rows import load_tile, span, store_tile


@triton.jit
def attention_backward_queries(
    q, k, v, do, dq, statistics, q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    do_image, do_row, do_head, heads, q_rows, k_rows, q_listed, k_listed, q_longest, blocks, scale, share,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Where am I
    program = tl.program_id(0)
    first = (program % blocks) * BLOCK_M
    head = ((program // blocks) % heads).to(tl.int64)
    image = (program // blocks // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
    q_count = min(q_count, q_longest)  # a bound that was too low must not write elsewhere
    k_start, k_count = span(k_spans, image, k_rows)
    if first >= q_count:
        return
    q_side = (q_start, q_count, q_index, image * q_listed, q_places)
    k_side = (k_start, k_count, k_index, image * k_listed, k_places)
    turn = (cos, sin)
    bias = bias_of(bias, head, bias_head)
    scale_log2 = scale * LOG2_E
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    lse = statistics + (image * heads + head) * 2 * q_longest

    # Load
    query = first + tl.arange(0, BLOCK_M)
    key = tl.arange(0, BLOCK_N)
    q_tile = load_turned(q + image * q_image + head * q_head, q_row, query, q_side, turn, D, BLOCK_D)
    do_tile = load_tile(do + image * do_image + head * do_head, do_row, query, q_side, D, BLOCK_D)

    # Compute: one sweep over the keys for the statistics, one for dq. Here [queries, keys].
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    delta = tl.zeros((BLOCK_M,), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v, v_row, base + key, k_side, D, BLOCK_D)
        s = scores(q_tile, k_tile, query, q_side, base + key, k_side, scale_log2, bias, bias_row)
        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee")
        grown = tl.maximum(largest, tl.max(s, 1))
        shrink = tl.exp2(largest - grown)
        p = tl.exp2(s - grown[:, None])
        total = total * shrink + tl.sum(p, 1)
        delta = delta * shrink + tl.sum(p * dp, 1)
        largest = grown
    total = tl.where(k_count > 0, total, 1.0)
    row_lse = tl.where(k_count > 0, largest, 0.0) + tl.log2(total * share)
    delta = delta / total

    dq_tile = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for base in range(0, k_count, BLOCK_N):
        k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v, v_row, base + key, k_side, D, BLOCK_D)
        s = scores(q_tile, k_tile, query, q_side, base + key, k_side, scale_log2, bias, bias_row)
        p = tl.exp2(s - row_lse[:, None])  # over the share
        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee")
        ds = p * (dp - delta[:, None]) * (scale * share)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision="ieee")

    # Store
    dq += (image * q_rows * heads + head) * D
    store_turned(dq, tl.cast(heads, tl.int64) * D, query, q_side, turn, dq_tile, D, BLOCK_D)
    tl.store(lse + query, row_lse, mask=query < q_count)
    tl.store(lse + q_longest + query, delta, mask=query < q_count)


@triton.jit
def attention_backward_keys(
    q, k, v, do, dk, dv, statistics, q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    do_image, do_row, do_head, heads, q_rows, k_rows, q_listed, k_listed, q_longest, blocks, scale, share,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Where am I
    program = tl.program_id(0)
    first = (program % blocks) * BLOCK_N
    head = ((program // blocks) % heads).to(tl.int64)
    image = (program // blocks // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
    q_count = min(q_count, q_longest)  # a bound that was too low must not write elsewhere
    k_start, k_count = span(k_spans, image, k_rows)
    if first >= k_count:
        return
    q_side = (q_start, q_count, q_index, image * q_listed, q_places)
    k_side = (k_start, k_count, k_index, image * k_listed, k_places)
    turn = (cos, sin)
    bias = bias_of(bias, head, bias_head)
    lse = statistics + (image * heads + head) * 2 * q_longest

    # Load
    key = first + tl.arange(0, BLOCK_N)
    k_tile = load_turned(k + image * k_image + head * k_head, k_row, key, k_side, turn, D, BLOCK_D)
    v_tile = load_tile(v + image * v_image + head * v_head, v_row, key, k_side, D, BLOCK_D)

    # Compute
    q += image * q_image + head * q_head
    do += image * do_image + head * do_head
    dk_tile, dv_tile = key_gradients(
        k_tile, v_tile, key, k_side, q, do, lse, lse + q_longest, q_row, do_row, q_side, turn,
        scale, share, bias, bias_row, D, BLOCK_D, BLOCK_M, BLOCK_N,
    )  # fmt: skip

    # Store
    made = (image * k_rows * heads + head) * D
    made_row = tl.cast(heads, tl.int64) * D
    store_turned(dk + made, made_row, key, k_side, turn, dk_tile, D, BLOCK_D)
    store_tile(dv + made, made_row, key, k_side, dv_tile, D, BLOCK_D)
