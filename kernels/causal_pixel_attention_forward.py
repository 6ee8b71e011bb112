"""Forward kernel of causal pixel attention: one program makes one tile of queries of one head."""

import triton
import triton.language as tl

from imagen_fast.kernels.causal_pixel_attention_tiles import (
    all_seen,
    as_column,
    as_row,
    pixels_of,
    seen_tiles,
    sees,
    tile_at,
)
from imagen_fast.kernels.masked_patch_attention_logits import LOG2_E
from imagen_fast.kernels.rows import load_tile, store_tile

# Less than any logit, and finite: a row that has seen nothing yet must not become -inf - -inf.
LEAST = tl.constexpr(-3.0e38)


@triton.jit
def causal_attention_forward(
    q, k, v, out, statistics,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head,
    heads, height, width, above, left, right, prefix, leading, blocks, across, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr,
    FLAT: tl.constexpr, LIMITED: tl.constexpr, PREFIX: tl.constexpr,
):  # fmt: skip
    # Where am I: tiles of one head are neighbours, so that its keys are still in L2 for the next. Those that
    # see most come first: what is left at the end of a launch is short.
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

    # Load
    query = pixels_of(line, column, height, width, Q_H, Q_W)
    q_tile = load_tile(q + image * q_image + head * q_head, q_row, query[2], side, D, BLOCK_D)

    # Compute
    largest = tl.full((Q_H * Q_W,), LEAST, tl.float32)
    total = tl.zeros((Q_H * Q_W,), tl.float32)
    o = tl.zeros((Q_H * Q_W, BLOCK_D), tl.float32)
    for step in range(walk[6]):
        k_line, k_column = tile_at(walk, step)
        key = pixels_of(k_line, k_column, height, width, K_H, K_W)
        k_tile = load_tile(k, k_row, key[2], side, D, BLOCK_D)
        v_tile = load_tile(v, v_row, key[2], side, D, BLOCK_D)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scale_log2
        if not all_seen(line, column, k_line, k_column, window, Q_H, Q_W, K_H, K_W, FLAT, LIMITED, PREFIX):
            seen = sees(as_column(query), as_row(key), window, FLAT, LIMITED, PREFIX)
            s = tl.where(seen, s, float("-inf"))
        grown = tl.maximum(largest, tl.max(s, 1))
        shrink = tl.exp2(largest - grown)
        p = tl.exp2(s - grown[:, None])
        total = total * shrink + tl.sum(p, 1)
        o = tl.dot(p.to(v_tile.dtype), v_tile, o * shrink[:, None], input_precision="ieee")
        largest = grown

    # Store: the output is contiguous, whatever the input was.
    out += (image * rows * heads + head) * D
    store_tile(out, tl.cast(heads, tl.int64) * D, query[2], side, o / total[:, None], D, BLOCK_D)
    statistics += (image * heads + head) * 2 * rows + query[2]
    tl.store(statistics, largest, mask=query[2] < rows)
    tl.store(statistics + rows, total, mask=query[2] < rows)
