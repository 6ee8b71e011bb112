"""Masked-patch attention on the CPU, as a torch.library operator.

Three ways, the first that fits: our native kernel, where it pays; batched matrix products with the
probabilities kept, for half precision and short sequences, where PyTorch's flash kernel spends most of its
time outside the matrix units; and that flash kernel. Each touches the listed rows only: hidden tokens cost
nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from imagen_fast import native
from imagen_fast.operators import NAMESPACE, registered
from imagen_fast.ops.contexts import Rows
from imagen_fast.ops.reference import positions, put

# Above this many keys the probabilities outgrow the caches and the flash kernel wins again.
_LONGEST_KEPT = 512


def refusal(q: Tensor) -> str | None:
    if q.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {q.device}"
    return None


def plan(dtype: torch.dtype, queries: int, keys: int, width: int) -> Literal["native", "products", "flash"]:
    """Which of the three ways a call goes."""
    # A bf16 pair is the smallest thing that the native kernel reads.
    if native.attention_pays(dtype) and width % 2 == 0:
        return "native"
    half = dtype in (torch.bfloat16, torch.float16)
    return "products" if half and keys <= _LONGEST_KEPT and queries <= 2 * _LONGEST_KEPT else "flash"


def _compact(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """The listed rows as [B, H, L, D], and which exist [B, L] where some do not (those are zero)."""
    if rows.spans is None:
        return x[:, : rows.longest].transpose(1, 2), None
    row, exists = positions(rows, x.device)
    if x.dim() == 4:
        taken = x[torch.arange(len(x))[:, None], row]
    elif len(x):
        taken = x[row]
    else:
        taken = x.new_zeros(*row.shape, *x.shape[1:])
    if bool(exists.all()):
        return taken.transpose(1, 2), None
    return taken.masked_fill_(~exists[..., None, None], 0).transpose(1, 2), exists


def _additive(exists: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """[B, 1, 1, N]: 0 where a key exists, else the lowest number (-inf makes NaN of a row without keys)."""
    if exists is None:
        return None
    zero = torch.zeros(exists.shape, dtype=dtype)
    return zero.masked_fill_(~exists, torch.finfo(dtype).min)[:, None, None, :]


def _unseeing(exists: Tensor | None) -> Tensor | None:
    """[B, 1, 1, 1], true for images with no key at all; None where every image has one."""
    if exists is None:
        return None
    none = ~exists.any(1)
    return none[:, None, None, None] if bool(none.any()) else None


def _images(x: Tensor, spans: Tensor | None) -> int:
    # Not by `len`, which a compiler knows as one number.
    return x.shape[0] if spans is None else spans.shape[0]


def _made_like(x: Tensor, rows: Rows, others: Rows) -> Tensor:
    """What the native kernel writes into: zeros, except where it writes every row anyway."""
    make = torch.empty if _every_row_counts(x, rows, others) else torch.zeros
    return make(x.shape, dtype=x.dtype)


def _every_row_counts(x: Tensor, rows: Rows, others: Rows) -> bool:
    """Whether each row of `x` is listed, in an image that lists some of the others."""
    count = torch.tensor([rows.longest]) if rows.spans is None else rows.spans[:, 1]
    if rows.spans is None:
        every = rows.longest == x.shape[1]
    else:  # one image after another, as packed tokens lie
        follows = count.cumsum(0) - count == rows.spans[:, 0]
        every = x.dim() == 3 and rows.index is None and int(count.sum()) == len(x) and bool(follows.all())
    has_others = others.longest > 0 if others.spans is None else others.spans[:, 1] > 0
    return every and bool(((count == 0) | has_others).all())


@library.custom_op(f"{NAMESPACE}::masked_patch_attention_cpu", mutates_args=(), device_types="cpu")
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None,
    q_index: Tensor | None,
    k_spans: Tensor | None,
    k_index: Tensor | None,
    q_longest: int,
    k_longest: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The output, and what the backward needs.

    Statistics of rows [B, H, 2, M], probabilities [B*H, M, N], or logarithms of sums [B, H, M].
    """
    queries, keys = Rows(q_longest, q_spans, q_index), Rows(k_longest, k_spans, k_index)
    way = plan(q.dtype, q_longest, k_longest, q.shape[-1])
    if way == "native":
        out = _made_like(q, queries, keys)
        kept = torch.zeros(_images(q, q_spans), q.shape[-2], 2, q_longest, dtype=torch.float32)
        native.attention_among_rows(q, k, v, queries, keys, scale).forward(out, kept)
        return out, kept
    qh, _ = _compact(q, queries)
    kh, exists = _compact(k, keys)
    vh, _ = _compact(v, keys)
    batch, heads, m, d = qh.shape
    n = kh.shape[2]
    if m == 0 or n == 0 or batch == 0:
        return torch.zeros(q.shape, dtype=q.dtype), q.new_empty(0)
    mask, unseeing = _additive(exists, q.dtype), _unseeing(exists)
    if way == "products":
        scores = torch.bmm((qh * scale).reshape(-1, m, d), kh.transpose(2, 3).reshape(-1, d, n))
        if mask is not None:
            scores.view(batch, heads, m, n).add_(mask)
        kept = scores.softmax(-1)
        if unseeing is not None:
            kept.view(batch, heads, m, n).masked_fill_(unseeing, 0)
        out = torch.bmm(kept, vh.reshape(-1, n, d)).view(batch, heads, m, d)
    else:
        out, kept = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            qh, kh, vh, 0.0, False, attn_mask=mask, scale=scale
        )
        kept = kept.contiguous()
        if unseeing is not None:
            out = out.masked_fill(unseeing, 0)
    out = out.transpose(1, 2)
    if queries.spans is None and m == q.shape[1]:
        return out.contiguous(), kept
    return put(out, queries, q), kept


@_attention.register_fake
def _(q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale):
    batch, heads = _images(q, q_spans), q.shape[-2]
    way = plan(q.dtype, q_longest, k_longest, q.shape[-1])
    if way == "native":
        kept = q.new_empty(batch, heads, 2, q_longest, dtype=torch.float32)
    elif q_longest == 0 or k_longest == 0 or batch == 0:
        kept = q.new_empty(0)
    elif way == "products":
        kept = q.new_empty(batch * heads, q_longest, k_longest)
    else:
        kept = q.new_empty(batch, heads, q_longest, dtype=torch.promote_types(q.dtype, torch.float32))
    return q.new_empty(q.shape), kept


@library.custom_op(f"{NAMESPACE}::masked_patch_attention_backward_cpu", mutates_args=(), device_types="cpu")
def _attention_backward(
    d_out: Tensor,
    out: Tensor,
    kept: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None,
    q_index: Tensor | None,
    k_spans: Tensor | None,
    k_index: Tensor | None,
    q_longest: int,
    k_longest: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys = Rows(q_longest, q_spans, q_index), Rows(k_longest, k_spans, k_index)
    way = plan(q.dtype, q_longest, k_longest, q.shape[-1])
    d_q: Tensor
    d_k: Tensor
    d_v: Tensor
    if way == "native":
        d_q = _made_like(q, queries, keys)
        d_k, d_v = (_made_like(x, keys, queries) for x in (k, v))
        problem = native.attention_among_rows(q, k, v, queries, keys, scale)
        problem.backward(d_out, out, kept, (d_q, d_k, d_v))
        return d_q, d_k, d_v
    qh, _ = _compact(q, queries)
    kh, exists = _compact(k, keys)
    vh, _ = _compact(v, keys)
    gh, _ = _compact(d_out, queries)
    batch, heads, m, d = qh.shape
    n = kh.shape[2]
    if m == 0 or n == 0 or batch == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    if way == "products":
        q3, k3, v3, g3 = (x.reshape(batch * heads, -1, d) for x in (qh, kh, vh, gh))
        dv = torch.bmm(kept.transpose(1, 2), g3)
        dp = torch.bmm(g3, v3.transpose(1, 2))
        ds = torch.ops.aten._softmax_backward_data(dp, kept, -1, kept.dtype)
        dq = torch.bmm(ds, k3).mul_(scale)
        dk = torch.bmm(ds.transpose(1, 2), q3).mul_(scale)
        dq, dk, dv = dq.view(batch, heads, m, d), dk.view(batch, heads, n, d), dv.view(batch, heads, n, d)
    else:
        mask, unseeing = _additive(exists, q.dtype), _unseeing(exists)
        if unseeing is not None:
            gh = gh.masked_fill(unseeing, 0)
        oh, _ = _compact(out, queries)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gh, qh, kh, vh, oh, kept, 0.0, False, attn_mask=mask, scale=scale
        )
    return _spread(dq, queries, q), _spread(dk, keys, k), _spread(dv, keys, v)


def _spread(gradient: Tensor, rows: Rows, like: Tensor) -> Tensor:
    """[B, H, L, D] back to the layout of `like`, zero where a row was not listed."""
    gradient = gradient.transpose(1, 2)
    if rows.spans is None and rows.longest == like.shape[1]:
        return gradient.contiguous()
    return put(gradient, rows, like)


@_attention_backward.register_fake
def _(d_out, out, kept, q, k, v, *tables):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    q, k, v, q_spans, q_index, k_spans, k_index, *ctx.numbers = inputs
    q_longest, k_longest, _ = ctx.numbers
    # Only the products, which keep their probabilities, do not ask for the output again.
    out = output[1] if plan(q.dtype, q_longest, k_longest, q.shape[-1]) == "products" else output[0]
    ctx.save_for_backward(out, output[1], q, k, v, q_spans, q_index, k_spans, k_index)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_out, _):
    if d_out is None:
        return (None,) * 10
    return *_attention_backward(d_out, *ctx.saved_tensors, *ctx.numbers), *(None,) * 7


_attention.register_autograd(_differentiate, setup_context=_save)


def masked_patch_attention(q: Tensor, k: Tensor, v: Tensor, *tables) -> Tensor:
    return _attention(q, k, v, *tables)[0]


def _attention_flops(q_shape, k_shape, products: int, q_longest: int, k_longest: int, images: int) -> int:
    heads, width = q_shape[-2:]
    return 2 * products * images * heads * q_longest * k_longest * width


@register_flop_formula(registered.masked_patch_attention_cpu)
def _(q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale, *args, out_shape=None, **kw):
    images = q[0] if len(q) == 4 else q_spans[0]
    return _attention_flops(q, k, 2, q_longest, k_longest, images)


@register_flop_formula(registered.masked_patch_attention_backward_cpu)
def _(d_out, out, kept, q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, *args, **kw):
    images = q[0] if len(q) == 4 else q_spans[0]
    # With the scores made again, as PyTorch counts its own kernels.
    return _attention_flops(q, k, 5, q_longest, k_longest, images)
