"""Kernels of the causal softmax: one program takes a few rows of scores.

The keys of a row are a picture themselves: a tile is [rows, LINES, COLUMNS] of it, so that who is seen takes
comparisons only, and no division a key. Only seen scores are read; the lanes of the others read nothing.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.masked_patch_attention_logits import row_max, row_sum


@triton.jit
def rows_of(total, window, ROWS: tl.constexpr):
    """Of the program's rows: number, matrix and query, int64, and whether they exist, each [rows, 1, 1]."""
    height, width, _above, _left, _right, _prefix = window
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    return row, row // (height * width), row % (height * width), row < total


@triton.jit
def keys_of(first_line, first_column, window, query, LINES: tl.constexpr, COLUMNS: tl.constexpr):
    """Raster numbers of a tile's keys [1, lines, columns], int64; which exist, and which each query sees."""
    height, width, above, left, right, prefix = window
    y = first_line + tl.arange(0, LINES)[None, :, None]
    x = first_column + tl.arange(0, COLUMNS)[None, None, :]
    j, k = query // width, query % width
    key = (y * width + x).to(tl.int64)
    exists = (y < height) & (x < width)
    near = (y >= j - above) & (x >= k - left) & (x <= k + right)
    return key, exists, exists & ((near & (key <= query)) | (key < prefix))


@triton.jit
def causal_softmax_forward(
    scores, p, matrix_stride, query_stride, key_stride, total,
    height, width, above, left, right, prefix,
    ROWS: tl.constexpr, LINES: tl.constexpr, COLUMNS: tl.constexpr,
    WHOLE: tl.constexpr,  # whether a tile holds whole rows
):  # fmt: skip
    # Where am I
    window = (height, width, above, left, right, prefix)
    row, matrix, query, listed = rows_of(total, window, ROWS)
    scores += matrix * matrix_stride + query * query_stride
    p += row * (height * width)

    # Load and compute
    if WHOLE:
        key, exists, seen = keys_of(0, 0, window, query, LINES, COLUMNS)
        s = tl.load(scores + key * key_stride, mask=seen & listed, other=float("-inf")).to(tl.float32)
        largest = row_max(s)[:, None, None]
        largest = tl.where(listed, largest, 0.0)  # -inf - -inf would be NaN
        exponential = tl.exp(s - largest)
        made = exponential / tl.where(listed, row_sum(exponential)[:, None, None], 1.0)
        tl.store(p + key, made.to(p.dtype.element_ty), mask=exists & listed)
    else:
        largest = tl.full((ROWS,), -3.0e38, tl.float32)  # finite, for tiles that nobody sees
        sums = tl.zeros((ROWS,), tl.float32)
        for y in range(0, height, LINES):
            for x in range(0, width, COLUMNS):
                key, _exists, seen = keys_of(y, x, window, query, LINES, COLUMNS)
                s = tl.load(scores + key * key_stride, mask=seen & listed, other=float("-inf"))
                s = s.to(tl.float32)
                grown = tl.maximum(largest, row_max(s))
                sums = sums * tl.exp(largest - grown) + row_sum(tl.exp(s - grown[:, None, None]))
                largest = grown
        for y in range(0, height, LINES):
            for x in range(0, width, COLUMNS):
                key, exists, seen = keys_of(y, x, window, query, LINES, COLUMNS)
                s = tl.load(scores + key * key_stride, mask=seen & listed, other=float("-inf"))
                made = tl.exp(s.to(tl.float32) - largest[:, None, None]) / sums[:, None, None]
                tl.store(p + key, made.to(p.dtype.element_ty), mask=exists & listed)


@triton.jit
def causal_softmax_backward(
    d_p, p, d_scores, matrix_stride, query_stride, key_stride, total,
    height, width, above, left, right, prefix,
    ROWS: tl.constexpr, LINES: tl.constexpr, COLUMNS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    # Where am I
    window = (height, width, above, left, right, prefix)
    row, matrix, query, listed = rows_of(total, window, ROWS)
    d_p += matrix * matrix_stride + query * query_stride
    p += row * (height * width)
    d_scores += row * (height * width)

    # Load and compute
    if WHOLE:
        key, exists, seen = keys_of(0, 0, window, query, LINES, COLUMNS)
        own = tl.load(p + key, mask=seen & listed, other=0.0).to(tl.float32)
        dp = tl.load(d_p + key * key_stride, mask=seen & listed, other=0.0).to(tl.float32)
        made = own * (dp - row_sum(own * dp)[:, None, None])
        tl.store(d_scores + key, made.to(d_scores.dtype.element_ty), mask=exists & listed)
    else:
        delta = tl.zeros((ROWS,), tl.float32)
        for y in range(0, height, LINES):
            for x in range(0, width, COLUMNS):
                key, _exists, seen = keys_of(y, x, window, query, LINES, COLUMNS)
                own = tl.load(p + key, mask=seen & listed, other=0.0).to(tl.float32)
                dp = tl.load(d_p + key * key_stride, mask=seen & listed, other=0.0).to(tl.float32)
                delta += row_sum(own * dp)
        for y in range(0, height, LINES):
            for x in range(0, width, COLUMNS):
                key, exists, seen = keys_of(y, x, window, query, LINES, COLUMNS)
                own = tl.load(p + key, mask=seen & listed, other=0.0).to(tl.float32)
                dp = tl.load(d_p + key * key_stride, mask=seen & listed, other=0.0).to(tl.float32)
                made = own * (dp - delta[:, None, None])
                tl.store(d_scores + key, made.to(d_scores.dtype.element_ty), mask=exists & listed)
