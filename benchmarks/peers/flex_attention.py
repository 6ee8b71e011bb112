"""PyTorch's FlexAttention: a block mask made of who is seen, and a kernel compiled for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from imagen_fast.ops.contexts import Window


def attention(
    seen: Tensor | None, queries: int, keys: int, builds_mask: bool = False, compiled: bool = True
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Of q [B, M, H, D] and k, v [B, N, H, D].

    Args:
        seen: [B, N] bool, the keys that exist; None where all do.
        builds_mask: make the block mask in every call, as one whose masks change with each layer has to.
    """
    attend = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
    build = torch.compile(create_block_mask, dynamic=False) if compiled else create_block_mask

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return seen[b, j]

    def block_mask() -> BlockMask | None:
        if seen is None:
            return None
        return build(visible, len(seen), None, queries, keys, device=seen.device)

    shared = None if builds_mask else block_mask()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = block_mask() if builds_mask else shared
        return attend(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask).transpose(1, 2)

    return call


def causal(window: Window, device: torch.device, compiled: bool = True) -> Callable[..., Tensor]:
    """Of q, k, v [B, N, H, D] in raster order: each pixel sees what the window lets it see."""
    attend = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
    build = torch.compile(create_block_mask, dynamic=False) if compiled else create_block_mask
    height, width, above, left, right, prefix = window

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        down, along = i // width - j // width, i % width - j % width
        near = (down <= above) & (along <= left) & (along >= -right)
        return ((j <= i) & near) | (j < prefix)

    pixels = height * width
    mask = build(visible, None, None, pixels, pixels, device=device)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask).transpose(1, 2)

    return call
