"""Logits of masked-patch attention, a tile or a whole row at a time, and the softmax of a whole row.

Logits are to base 2, so that the softmax is ``exp2``. A row of up to 256 of them stays in registers, and
nothing is ever rescaled. Where one product cannot make it (its operands outgrow shared memory, or in fp32
the registers), it is made in parts: ``[queries, parts, keys of a part]``, filled and read by a loop that
stops after the last listed key.

The statistics of a row are ``lse`` = log2(share * sum of exp2 of its logits) and ``delta``. ``share`` is one
over a power of two of about as many keys as there are, at most 2^14: ``exp2(s - lse)`` is then the
probability over ``share``, where the log-sum of small logits is near zero and rounded as finely as they are,
and where float16 keeps the probabilities of long rows above its smallest normal number, and all of them below
its largest.
"""

import triton
import triton.language as tl

from imagen_fast.kernels.rows import places_at

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def bias_of(bias, head, stride):
    """The head's own bias [places, places], or None."""
    if bias is None:
        own = None
    else:
        own = bias + head * stride
    return own


@triton.jit
def biased(s, bias, bias_row, query, q_side, key, k_side, KEYS_FIRST: tl.constexpr):
    """``s`` [queries, keys], or the other way round, with the bias of their places; 0 where there is none."""
    if bias is not None:
        q_listed, k_listed = query < q_side[1], key < k_side[1]
        q_offset, k_offset = places_at(query, q_side) * bias_row, places_at(key, k_side)
        if KEYS_FIRST:
            pointer = bias + q_offset[None, :] + k_offset[:, None]
            mask = q_listed[None, :] & k_listed[:, None]
        else:
            pointer = bias + q_offset[:, None] + k_offset[None, :]
            mask = q_listed[:, None] & k_listed[None, :]
        s += tl.load(pointer, mask=mask, other=0.0).to(tl.float32) * LOG2_E
    return s


@triton.jit
def scores(q, k, query, q_side, key, k_side, scale_log2, bias, bias_row):
    """Logits [queries, keys]; -inf where no key is listed."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
    s = biased(s, bias, bias_row, query, q_side, key, k_side, False)
    return tl.where((key < k_side[1])[None, :], s, float("-inf"))


@triton.jit
def attend(s, v, k_count):
    """Softmax of whole rows of logits [queries, keys], times the values; a row's largest, and its sum."""
    largest = tl.where(k_count > 0, tl.max(s, 1), 0.0)  # -inf - -inf would be NaN
    p = tl.exp2(s - largest[:, None])
    total = tl.where(k_count > 0, tl.sum(p, 1), 1.0)
    return tl.dot(p.to(v.dtype), v, input_precision="ieee") / total[:, None], largest, total


@triton.jit
def store_lse(lse, offset, query, q_count, largest, total):
    """ln of the sum of e to the logits of each query, for whoever asked for it."""
    if lse is not None:
        tl.store(lse + offset + query, (largest + tl.log2(total)) * LN_2, mask=query < q_count)


@triton.jit
def softmax_gradient(q, k, v, do, query, q_side, key, k_side, scale, share, bias, bias_row):
    """p and ds [keys, queries] of queries against all their keys at once, and both row statistics."""
    k_count = k_side[1]
    s = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * LOG2_E)
    s = biased(s, bias, bias_row, query, q_side, key, k_side, True)
    s = tl.where((key < k_count)[:, None], s, float("-inf"))
    largest = tl.where(k_count > 0, tl.max(s, 0), 0.0)  # -inf - -inf would be NaN
    p = tl.exp2(s - largest[None, :])
    total = tl.where(k_count > 0, tl.sum(p, 0), 1.0)
    p = p * (1.0 / total)[None, :]
    dp = tl.dot(v, tl.trans(do), input_precision="ieee")
    delta = tl.sum(p * dp, 0)
    ds = p * (dp - delta[None, :]) * scale
    return p, ds, largest + tl.log2(total * share), delta


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
