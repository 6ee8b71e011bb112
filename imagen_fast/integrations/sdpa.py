"""PyTorch's `scaled_dot_product_attention`, by our kernels where they serve the call."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops import Raster, Visible, causal_pixel_attention, masked_patch_attention

TYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    types: frozenset[torch.dtype] = TYPES,
) -> Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, which serves what ours does not.

    Ours are attention to all tokens, to all that a padding mask leaves, with a bias of relative positions, and
    to the tokens before, of as many queries as keys. Dropped probabilities, grouped heads, other masks, other
    types of numbers and other shapes are PyTorch's.

    Args:
        query: [B, H, M, D]; key, value: [B, H, N, D]; any strides, the last dimension contiguous.
        attn_mask: bool [B or 1, 1, M or 1, N], true where a key is seen; or floating point, added to the scores.
        types: the types of numbers that go to our kernels.

    Returns:
        [B, H, M, D]; ours lies in memory as [B, M, H, D], so that putting the heads together copies nothing.
    """
    context, bias = _mask(attn_mask)
    if (
        dropout_p > 0
        or enable_gqa
        or query.dim() != 4
        or query.dtype not in types
        or key.shape[1:2] != query.shape[1:2]
        or value.shape != key.shape
        or (attn_mask is not None and (is_causal or (context is None and bias is None)))
        or (is_causal and query.shape != key.shape)
        or query.stride(-1) != 1
    ):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if is_causal:
        return causal_pixel_attention(q, k, v, (1, q.shape[1]), Raster(), scale=scale).transpose(1, 2)
    return masked_patch_attention(q, k, v, context, scale=scale, bias=bias).transpose(1, 2)


def _mask(mask: Tensor | None) -> tuple[Visible | None, Tensor | None]:
    """What a mask says that is the same for all queries of an image, or a bias that is the same for all images."""
    if mask is None or mask.dim() != 4:
        return None, None
    if mask.dtype == torch.bool:
        # A mask of padding is expanded over the queries, not filled in.
        alike = mask.shape[1] == 1 and (mask.shape[2] == 1 or mask.stride(2) == 0)
        return (Visible.in_place(~mask[:, 0, 0]), None) if alike else (None, None)
    return None, mask[0] if len(mask) == 1 and mask.shape[1] > 1 else None
