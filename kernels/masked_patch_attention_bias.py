"""Gradient of the bias of masked-patch attention: one program makes one tile of one head's, over many images.

    d_bias[x, y] = sum over images of p[i, j] (dp[i, j] - delta[i]),  i the query at place x, j the key at y

from the row statistics that the other backward kernels leave. The images of a group are added in order and
the groups by a sum afterwards: the same bits every time. ``at`` says for each image which listed row lies
at a place, a number past all counts where none does; without it row i lies at place i.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import LOG2_E
from imagen_fast.kernels.rotary import load_turned
from imagen_fast.kernels.rows import load_tile, span


@triton.jit
def positions_at(place, at, image, grid):
    """Which of the image's listed rows lie at ``place``."""
    if at is None:
        position = place
    else:
        position = tl.load(at + image * (grid + 1) + place, mask=place < grid, other=2**30)
    return position


@triton.jit
def attention_backward_bias(
    q, k, v, do, statistics, partial, q_spans, q_index, q_places, k_spans, k_index, k_places, cos, sin, bias,
    q_at, k_at,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head, bias_head, bias_row,
    do_image, do_row, do_head, heads, q_rows, k_rows, q_listed, k_listed, q_longest, scale, share,
    images, group, q_grid, k_grid, q_blocks, k_blocks,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Where am I
    tile = tl.program_id(0)
    q_place = (tile // k_blocks % q_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    k_place = (tile % k_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    head = (tile // k_blocks // q_blocks % heads).to(tl.int64)
    first = tile // k_blocks // q_blocks // heads * group
    turn = (cos, sin)
    inside = (q_place < q_grid)[:, None] & (k_place < k_grid)[None, :]
    q += head * q_head
    k += head * k_head
    v += head * v_head
    do += head * do_head

    # Load
    offset = q_place.to(tl.int64)[:, None] * bias_row + k_place[None, :]
    b = tl.load(bias + head * bias_head + offset, mask=inside, other=0.0).to(tl.float32) * LOG2_E

    # Compute
    d_bias = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for number in range(first, min(first + group, images)):
        image = tl.cast(number, tl.int64)
        q_start, q_count = span(q_spans, image, q_rows)
        q_count = min(q_count, q_longest)  # a bound that was too low must not write elsewhere
        k_start, k_count = span(k_spans, image, k_rows)
        q_side = (q_start, q_count, q_index, image * q_listed, q_places)
        k_side = (k_start, k_count, k_index, image * k_listed, k_places)
        query = positions_at(q_place, q_at, image, q_grid)
        key = positions_at(k_place, k_at, image, k_grid)
        q_tile = load_turned(q + image * q_image, q_row, query, q_side, turn, D, BLOCK_D)
        k_tile = load_turned(k + image * k_image, k_row, key, k_side, turn, D, BLOCK_D)
        v_tile = load_tile(v + image * v_image, v_row, key, k_side, D, BLOCK_D)
        do_tile = load_tile(do + image * do_image, do_row, query, q_side, D, BLOCK_D)
        row = statistics + (image * heads + head) * 2 * q_longest + query
        lse = tl.load(row, mask=query < q_count, other=0.0)
        delta = tl.load(row + q_longest, mask=query < q_count, other=0.0)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * (scale * LOG2_E) + b
        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee")
        listed = (query < q_count)[:, None] & (key < k_count)[None, :]
        d_bias += tl.where(listed, tl.exp2(s - lse[:, None]) * (dp - delta[:, None]), 0.0)

    # Store
    made = partial + (first // group * heads + head) * q_grid * bias_row
    tl.store(made + offset, d_bias * share, mask=inside)
