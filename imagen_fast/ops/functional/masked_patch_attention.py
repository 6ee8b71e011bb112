"""Attention among patches when every image hides its own set: contract, checks and dispatch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.kernels.masked_patch_attention_shapes import WIDEST_PLACED
from imagen_fast.ops import reference
from imagen_fast.ops.contexts import Rows, Visible
from imagen_fast.ops.cpu import masked_patch_attention as cpu
from imagen_fast.ops.dispatch import choose
from imagen_fast.ops.functional.checks import autocast, same_kind
from imagen_fast.ops.rotary import Rotary, turn


def masked_patch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Visible | None = None,
    *,
    scale: float | None = None,
    rotary: Rotary | None = None,
    bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention among the patches of each image, when every image hides its own set.

    softmax(scale * q k^T + bias) v over the keys that the context lists for the query's image (Vaswani et
    al. 2017, eq. 1). A row with nothing to attend to gives zeros; what a hidden token holds, NaN included,
    changes no visible output.

    Args:
        q: [B, M, H, D], or packed [T, H, D] with a packed context; any strides, last dimension contiguous.
        k, v: [B, N, H, D], or packed [T', H, D].
        context: who may attend to whom (`Visible.in_place`, `.packed`, `.cross`); None lets every query
            of an image see all keys of it.
        scale: factor of the scores; 1 / sqrt(D) where not given.
        rotary: turns q and k by their place on the grid (Su et al. 2021), as DINOv3 does; it gets no
            gradient. The place of a row is its number, or what the context says in `places`; packed rows
            need them.
        bias: [H, P, P'], floating point and finite, added to the scaled scores: bias[h, place of the query,
            place of the key], as in BEiT (Bao et al. 2021, appendix A, there gathered from a table of
            relative positions). It gets a gradient in its own type. No two rows of an image may lie at one
            place, which is checked on the CPU only.
        backend: force 'triton', 'cpu' or 'reference' for this call.

    Returns:
        A tensor shaped like q, in q's type: float32, bfloat16 or float16.

    Raises:
        InvalidInput: shapes, types or devices that do not fit together.
        BackendUnavailable: the forced back-end cannot serve the call.
    """
    q, k, v = autocast(q, k, v)
    context = _check(q, k, v, context)
    _check_places(q, k, context, rotary, bias)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)

    queries, keys = context.queries, context.keys
    tables = (queries.spans, queries.index, keys.spans, keys.index)
    fused = rotary if q.shape[-1] <= WIDEST_PLACED else None
    cos, sin = (None, None) if fused is None else (fused.cos, fused.sin)
    placed = (cos, sin, bias, queries.places, keys.places)

    def refusal(name: str) -> str | None:
        if name == "triton":
            from imagen_fast.kernels import masked_patch_attention as kernel

            return kernel.supports(q, k, v, *tables, *placed)
        return cpu.refusal(q) if name == "cpu" else None

    chosen = choose("masked_patch_attention", q.device, refusal, backend)
    # PyTorch's products are the CPU's way with a bias, too.
    if chosen == "reference" or (chosen == "cpu" and bias is not None):
        return reference.masked_patch_attention(q, k, v, context, scale, rotary, bias)
    if rotary is not None and (chosen == "cpu" or fused is None):
        q, k = turn(q, rotary, queries.places), turn(k, rotary, keys.places)
    bounds = (queries.longest, keys.longest, scale)
    if chosen == "triton":
        from imagen_fast.kernels import masked_patch_attention as kernel

        return kernel.masked_patch_attention(q, k, v, *tables, *bounds, *placed)
    return cpu.masked_patch_attention(q, k, v, *tables, *bounds)


def _check(q: Tensor, k: Tensor, v: Tensor, context: Visible | None) -> Visible:
    if q.dim() not in (3, 4) or k.dim() not in (3, 4):
        raise InvalidInput(
            "q, k and v must be [B, N, H, D] or packed [T, H, D], not "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if k.shape != v.shape or k.shape[-2:] != q.shape[-2:]:
        raise InvalidInput(
            f"k and v must have one shape, and q's heads and width, not q {tuple(q.shape)}, "
            f"k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    same_kind(q, k, v)
    if context is None:
        if q.dim() == 3 or k.dim() == 3:
            raise InvalidInput("packed tensors [T, H, D] need a context that says where each image begins")
        context = Visible(Rows(q.shape[1]), Rows(k.shape[1]))
    elif context.queries.spans is None and (q.dim() == 3 or context.queries.longest != q.shape[1]):
        # Every row is asked for, in place.
        raise InvalidInput(
            f"the context is for {context.queries.longest} tokens an image, q is {tuple(q.shape)}"
        )
    # By `shape`, and compared one by one: a compiler knows `len`, and what is put into a set, as one number.
    images = [x.shape[0] for x in (q, k) if x.dim() == 4]
    images += [rows.spans.shape[0] for rows in (context.queries, context.keys) if rows.spans is not None]
    if any(count != images[0] for count in images):
        raise InvalidInput(f"q, k, v and the context must be of as many images, not {images}")
    for name, x, rows in (("q", q, context.queries), ("k", k, context.keys)):
        if (problem := rows.problem(x)) is not None:
            raise InvalidInput(f"the context does not fit {name}, {tuple(x.shape)} on {x.device}: {problem}")
    return context


def _check_places(q: Tensor, k: Tensor, context: Visible, rotary: Rotary | None, bias: Tensor | None) -> None:
    """A rotary embedding and a bias must fit the heads, and have an entry for every place."""
    grids = []
    if rotary is not None:
        if (problem := rotary.problem(q)) is not None:
            raise InvalidInput(f"rotary does not fit the heads: {problem}")
        grids.append(("rotary", len(rotary.cos), len(rotary.cos)))
    if bias is not None:
        if bias.dim() != 3 or len(bias) != q.shape[-2] or not bias.is_floating_point():
            raise InvalidInput(
                f"bias must be floating point [{q.shape[-2]}, P, P'], a matrix a head, not {bias.dtype} "
                f"{tuple(bias.shape)}"
            )
        if bias.device != q.device:
            raise InvalidInput(f"bias must be where q is, on {q.device}, not on {bias.device}")
        grids.append(("bias", bias.shape[1], bias.shape[2]))
        if q.device.type == "cpu" and not torch.compiler.is_compiling():
            for name, rows in (("q", context.queries), ("k", context.keys)):
                if rows.shares_a_place():
                    raise InvalidInput(f"with a bias, no two rows of an image in {name} may share a place")
    for name, q_grid, k_grid in grids:
        for what, x, rows, grid in (("q", q, context.queries, q_grid), ("k", k, context.keys, k_grid)):
            if (problem := rows.misplaced(x, grid)) is not None:
                raise InvalidInput(f"{name} has {grid} places for {what}, {tuple(x.shape)}, but {problem}")
