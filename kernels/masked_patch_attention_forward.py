"""Forward kernel of masked-patch attention: one program makes one block of queries of one head."""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import put_part, row_max, row_sum, scores, take_part
from imagen_fast.kernels.rows import index_of, load_tile, span, store_tile


@triton.jit
def attention_forward(
    q, k, v, out, q_spans, q_index, k_spans, k_index,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head,
    heads, q_rows, k_rows, q_listed, k_listed, blocks, scale_log2,
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
    q_own = index_of(q_index, image, q_listed)
    k_own = index_of(k_index, image, k_listed)
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head

    # Load
    query = first + tl.arange(0, BLOCK_M)
    key = tl.arange(0, BLOCK_N)
    q_tile = load_tile(q + image * q_image + head * q_head, q_row, query, q_count, q_start, q_own, D, BLOCK_D)

    # Compute
    if ROW == BLOCK_N:
        k_tile = load_tile(k, k_row, key, k_count, k_start, k_own, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key, k_count, k_start, k_own, D, BLOCK_D)
        s = scores(q_tile, k_tile, key, k_count, scale_log2)
        largest = tl.where(k_count > 0, tl.max(s, 1), 0.0)  # -inf - -inf would be NaN
        p = tl.exp2(s - largest[:, None])
        total = tl.sum(p, 1)
        o = tl.dot(p.to(v_tile.dtype), v_tile, input_precision="ieee")
    elif ROW > 0:
        row = tl.full((BLOCK_M, ROW // BLOCK_N, BLOCK_N), float("-inf"), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            k_tile = load_tile(k, k_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
            row = put_part(row, scores(q_tile, k_tile, base + key, k_count, scale_log2), base // BLOCK_N)
        largest = tl.where(k_count > 0, row_max(row), 0.0)
        row = tl.exp2(row - largest[:, None, None])
        total = row_sum(row)
        o = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            v_tile = load_tile(v, v_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
            p = take_part(row, base // BLOCK_N)
            o = tl.dot(p.to(v_tile.dtype), v_tile, o, input_precision="ieee")
    else:
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        o = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for base in range(0, k_count, BLOCK_N):
            k_tile = load_tile(k, k_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
            v_tile = load_tile(v, v_row, base + key, k_count, k_start, k_own, D, BLOCK_D)
            s = scores(q_tile, k_tile, base + key, k_count, scale_log2)
            grown = tl.maximum(largest, tl.max(s, 1))
            shrink = tl.exp2(largest - grown)
            p = tl.exp2(s - grown[:, None])
            total = total * shrink + tl.sum(p, 1)
            o = tl.dot(p.to(v_tile.dtype), v_tile, o * shrink[:, None], input_precision="ieee")
            largest = grown
    o = o / tl.where(k_count > 0, total, 1.0)[:, None]  # without a key: 0 / 1

    # Store: the output is contiguous, whatever the input was.
    out += (image * q_rows * heads + head) * D
    store_tile(out, tl.cast(heads, tl.int64) * D, query, q_count, q_start, q_own, o, D, BLOCK_D)
