"""Kernels of masked-patch attention for up to 64 keys: all keys of a head in one tile.

Forward, a head is too little work for a program of its own. As many programs are started as the chip holds
at once, and program i takes the blocks of queries i, i + programs, ... in a pipelined loop: the next block is
on its way while this one is computed and stored. Backward, where dk and dv stay in registers, a program is a
head: around its own loop a second one cannot be pipelined, and costs the registers of a resident program
(199 instead of 157 a thread on sm_90 at D=64, 245 instead of 168 on sm_80).
"""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import (
    LOG2_E,
    attend,
    bias_of,
    scores,
    softmax_gradient,
)
from imagen_fast.kernels.rotary import load_turned, store_turned
from imagen_fast.kernels.rows import load_tile, span, store_tile


@triton.jit
def attention_forward_short(
    q, k, v, out, q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    heads, q_rows, k_rows, q_listed, k_listed, blocks, items, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    turn = (cos, sin)
    key = tl.arange(0, BLOCK_N)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        # Where am I
        query = (item % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
        head = ((item // blocks) % heads).to(tl.int64)
        image = (item // blocks // heads).to(tl.int64)
        q_start, q_count = span(q_spans, image, q_rows)
        k_start, k_count = span(k_spans, image, k_rows)
        q_side = (q_start, q_count, q_index, image * q_listed, q_places)
        k_side = (k_start, k_count, k_index, image * k_listed, k_places)

        # Load
        q_tile = load_turned(q + image * q_image + head * q_head, q_row, query, q_side, turn, D, BLOCK_D)
        k_tile = load_turned(k + image * k_image + head * k_head, k_row, key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v + image * v_image + head * v_head, v_row, key, k_side, D, BLOCK_D)

        # Compute
        head_bias = bias_of(bias, head, bias_head)
        s = scores(q_tile, k_tile, query, q_side, key, k_side, scale * LOG2_E, head_bias, bias_row)
        o, _, _ = attend(s, v_tile, k_count)

        # Store: the output is contiguous, whatever the input was.
        made = out + (image * q_rows * heads + head) * D
        store_tile(made, tl.cast(heads, tl.int64) * D, query, q_side, o, D, BLOCK_D)


@triton.jit
def attention_backward_short(
    q, k, v, do, dq, dk, dv, statistics,
    q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    do_image, do_row, do_head, heads, q_rows, k_rows, q_listed, k_listed, q_longest, scale, share,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    do += image * do_image + head * do_head
    dq += (image * q_rows * heads + head) * D
    made = (image * k_rows * heads + head) * D  # where this head's gradients start: they are contiguous
    made_row = tl.cast(heads, tl.int64) * D

    # Load
    key = tl.arange(0, BLOCK_N)
    k_tile = load_turned(k + image * k_image + head * k_head, k_row, key, k_side, turn, D, BLOCK_D)
    v_tile = load_tile(v + image * v_image + head * v_head, v_row, key, k_side, D, BLOCK_D)

    # Compute
    dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, q_count, BLOCK_M):
        query = first + tl.arange(0, BLOCK_M)
        q_tile = load_turned(q, q_row, query, q_side, turn, D, BLOCK_D)
        do_tile = load_tile(do, do_row, query, q_side, D, BLOCK_D)
        p, ds, lse, delta = softmax_gradient(
            q_tile, k_tile, v_tile, do_tile, query, q_side, key, k_side, scale, share, bias, bias_row
        )
        ds = ds.to(q_tile.dtype)
        dv_tile = tl.dot(p.to(do_tile.dtype), do_tile, dv_tile, input_precision="ieee")
        dk_tile = tl.dot(ds, q_tile, dk_tile, input_precision="ieee")
        dq_tile = tl.trans(tl.dot(tl.trans(k_tile), ds, input_precision="ieee"))
        store_turned(dq, made_row, query, q_side, turn, dq_tile, D, BLOCK_D)
        if statistics is not None:  # the gradient of the bias asks for them
            row = statistics + tl.program_id(0).to(tl.int64) * 2 * q_longest + query
            tl.store(row, lse, mask=query < q_count)
            tl.store(row + q_longest, delta, mask=query < q_count)

    # Store
    store_turned(dk + made, made_row, key, k_side, turn, dk_tile, D, BLOCK_D)
    store_tile(dv + made, made_row, key, k_side, dv_tile, D, BLOCK_D)
