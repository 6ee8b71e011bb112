"""Forward kernel of masked-patch attention: one program makes one block of queries of one head."""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import (
    LOG2_E,
    attend,
    bias_of,
    put_part,
    row_max,
    row_sum,
    scores,
    store_lse,
    take_part,
)
from imagen_fast.kernels.rotary import load_turned
from imagen_fast.kernels.rows import load_tile, span, store_tile


@triton.jit
def attention_forward(
    q, k, v, out, lse, q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    heads, q_rows, k_rows, q_listed, k_listed, blocks, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ROW: tl.constexpr,  # keys of a whole row in registers; 0 where rows are longer
):  # fmt: skip
    # Where am I: blocks of one head are neighbours, so that its keys are still in L2 for the next.
    program = tl.program_id(0)
    first = (program % blocks) * BLOCK_M
    head = ((program // blocks) % heads).to(tl.int64)
    image = (program // blocks // heads).to(tl.int64)
    q_start, q_count = span(q_spans, image, q_rows)
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

    # Load
    query = first + tl.arange(0, BLOCK_M)
    key = tl.arange(0, BLOCK_N)
    q_tile = load_turned(q + image * q_image + head * q_head, q_row, query, q_side, turn, D, BLOCK_D)

    # Compute
    if ROW == BLOCK_N:
        k_tile = load_turned(k, k_row, key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key, k_side, D, BLOCK_D)
        s = scores(q_tile, k_tile, query, q_side, key, k_side, scale_log2, bias, bias_row)
        o, largest, total = attend(s, v_tile, k_count)
    elif ROW > 0:
        row = tl.full((BLOCK_M, ROW // BLOCK_N, BLOCK_N), float("-inf"), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
            s = scores(q_tile, k_tile, query, q_side, base + key, k_side, scale_log2, bias, bias_row)
            row = put_part(row, s, base // BLOCK_N)
        largest = tl.where(k_count > 0, row_max(row), 0.0)
        row = tl.exp2(row - largest[:, None, None])
        total = tl.where(k_count > 0, row_sum(row), 1.0)
        o = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            v_tile = load_tile(v, v_row, base + key, k_side, D, BLOCK_D)
            p = take_part(row, base // BLOCK_N)
            o = tl.dot(p.to(v_tile.dtype), v_tile, o, input_precision="ieee")
        o = o / total[:, None]
    else:
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        o = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            k_tile = load_turned(k, k_row, base + key, k_side, turn, D, BLOCK_D)
            v_tile = load_tile(v, v_row, base + key, k_side, D, BLOCK_D)
            s = scores(q_tile, k_tile, query, q_side, base + key, k_side, scale_log2, bias, bias_row)
            grown = tl.maximum(largest, tl.max(s, 1))
            shrink = tl.exp2(largest - grown)
            p = tl.exp2(s - grown[:, None])
            total = total * shrink + tl.sum(p, 1)
            o = tl.dot(p.to(v_tile.dtype), v_tile, o * shrink[:, None], input_precision="ieee")
            largest = grown
        total = tl.where(k_count > 0, total, 1.0)
        o = o / total[:, None]  # without a key: 0 / 1

    # Store: the output is contiguous, whatever the input was.
    out += (image * q_rows * heads + head) * D
    store_tile(out, tl.cast(heads, tl.int64) * D, query, q_side, o, D, BLOCK_D)
    store_lse(lse, (image * heads + head) * q_rows, query, q_count, largest, total)
