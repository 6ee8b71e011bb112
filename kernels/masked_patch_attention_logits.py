"""Logits of masked-patch attention, a tile or a whole row at a time.

A row of up to 256 logits stays in registers, so that nothing is ever rescaled. Where one product cannot
make it (its operands outgrow shared memory, or in fp32 the registers), it is made in parts:
``[queries, parts, keys of a part]``, filled and read by a loop that stops after the last listed key.
"""

import triton
import triton.language as tl


@triton.jit
def scores(q, k, key, k_count, scale_log2):
    """Base-2 logits [queries, keys]; -inf where no key is listed."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
    return tl.where((key < k_count)[None, :], s, float("-inf"))


@triton.jit
def put_part(row, part, number):
    return tl.where((tl.arange(0, row.shape[1]) == number)[None, :, None], part[:, None, :], row)


@triton.jit
def take_part(row, number):
    return tl.sum(tl.where((tl.arange(0, row.shape[1]) == number)[None, :, None], row, 0.0), 1)


@triton.jit
def row_max(row):
    return tl.max(tl.max(row, 2), 1)


@triton.jit
def row_sum(row):
    return tl.sum(tl.sum(row, 2), 1)
