"""PyTorch's `scaled_dot_product_attention`, by our kernels where they serve the call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.ops import Raster, Rows, Visible, causal_pixel_attention, masked_patch_attention
from imagen_fast.ops.dispatch import transformed
from imagen_fast.ops.flash import kernel_serves
from imagen_fast.ops.functional.checks import autocast

TYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})

# The kernels need a bias that is finite when it is scaled to base 2; e^-1e30 is zero, as that of less is.
_LEAST_BIAS = {torch.float32: -1e30, torch.bfloat16: -1e30, torch.float16: -65504.0}


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    types: frozenset[torch.dtype] = TYPES,
) -> Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, which serves what our kernels do not.

    Ours serve attention to all tokens, to those that a padding mask leaves, to the tokens before, where there
    are as many queries as keys, and on a GPU attention with a learned bias that all images share. All else is
    PyTorch's: dropped probabilities, other masks, grouped or broadcast heads, other shapes, types and
    devices, tensors of subclasses, what runs within `torch.func` or in forward mode.

    A row with nothing to attend to gives zeros, as PyTorch's does. Ours differs where nobody should look: a
    hidden key that is NaN changes nothing, a bias of which a whole row is -inf gives the mean of the values,
    and the gradient has no gradient itself.

    Args:
        query: [B, H, M, D]; key, value: [B, H, N, D].
        attn_mask: bool, true where a key is seen, or floating point, added to the scores.
        types: the types of numbers that go to our kernels; under autocast, the type that it asks for.

    Returns:
        [B, H, M, D]; ours lies in memory as [B, M, H, D], so that putting the heads together copies nothing.
    """
    q, k, v = autocast(query, key, value)
    ours = None
    if dropout_p == 0 and q.dtype in types and _alike(q, k, v) and not transformed():
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        ours = _ours(q, k, v, attn_mask, is_causal, scale)
    if ours is not None:
        return ours.transpose(1, 2)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _ours(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor | None:
    """Of q, k and v [B, N, H, D]; None where ours does not serve the call."""
    if is_causal:
        if mask is not None or not kernel_serves(q, k, v, causal=True):
            return None
        return causal_pixel_attention(q, k, v, (1, q.shape[1]), Raster(), scale=scale)
    context, bias = None, None
    if mask is not None:
        if not _fits(mask, q, k):
            return None
        # Where it is the same for all of an axis, the stride of that axis says so.
        mask = mask.expand(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        if mask.dtype == torch.bool and _repeats(mask, 1) and _repeats(mask, 2):
            seen = Visible.in_place(~mask[:, 0, 0]).keys
            context = Visible(Rows(q.shape[1]), seen)
        elif mask.dtype in _LEAST_BIAS and mask.requires_grad and _repeats(mask, 0):
            bias = mask[0].clamp(min=_LEAST_BIAS[mask.dtype])
        else:
            return None
    if not kernel_serves(q, k, v, causal=False, bias=bias):
        return None
    return masked_patch_attention(q, k, v, context, scale=scale, bias=bias)


def _alike(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are plain tensors of one kind, none empty."""
    return (
        all(plain(x) and x.dim() == 4 and x.stride(-1) == 1 and x.numel() > 0 for x in (q, k, v))
        and q.dtype == k.dtype == v.dtype
        and q.device == k.device == v.device
    )


def _fits(mask: Tensor, q: Tensor, k: Tensor) -> bool:
    """Whether the mask is one of [B, H, M, N], or broadcast to it; what is none PyTorch explains."""
    whole = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    return (
        plain(mask)
        and mask.device == q.device
        and 2 <= mask.dim() <= 4
        and all(own in (1, size) for own, size in zip(mask.shape[::-1], whole[::-1], strict=False))
    )


def plain(x: Tensor) -> bool:
    """Whether it is no subclass, nor what stands for a tensor where a graph is traced.

    A subclass has an attention of its own, as a causal bias, or rules for PyTorch's, as a DTensor.
    """
    return type(x) in (Tensor, nn.Parameter)


def _repeats(x: Tensor, axis: int) -> bool:
    return x.shape[axis] == 1 or x.stride(axis) == 0
