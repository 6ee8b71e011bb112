"""Rotary position embedding: queries and keys turned by where on the grid their token lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput


@dataclass(frozen=True)
class Rotary:
    """The cosines and sines that `masked_patch_attention` turns queries and keys by.

    The i-th and the (i + D/2)-th entry of a head's row, whose token lies at place p, turn together by the
    angle whose cosine is `cos[p, i]` (Su et al. 2021, arXiv:2104.09864, in the pairing of transformers'
    `rotate_half`). A token without a place, as a class token, has a row of cosine 1 and sine 0. The tables
    get no gradient. Made once and shared by all layers.
    """

    cos: Tensor  # [P, D/2] float32
    sin: Tensor  # [P, D/2] float32

    @classmethod
    def axial(
        cls,
        grid: tuple[int, int],
        width: int,
        base: float = 100.0,
        prefix: int = 1,
        normalise: Literal["separate", "min", "max"] = "separate",
        device: torch.device | str | None = None,
    ) -> Rotary:
        """The two-dimensional table of DINOv3 (Siméoni et al. 2025, arXiv:2508.10104).

        A quarter of a row turns by 2 pi y / base^(4 i / D), the next by the same of x, where (y, x) is the
        centre of the patch with each side of the grid from -1 to 1.

        Args:
            grid: rows and columns of patches, which follow in raster order.
            width: D, the head width; a multiple of 4.
            base: the slowest of the D/4 frequencies is nearly 1 / base of the fastest.
            prefix: tokens before the patches (class token, registers), which do not turn.
            normalise: the side that becomes 2 long: each its own, the shorter, or the longer one for both.
            device: where the table is made.

        Raises:
            InvalidInput: a width that is no multiple of 4, an empty grid, or another word to normalise by.
        """
        if width < 4 or width % 4:
            raise InvalidInput(f"the head width of an axial table must be a multiple of 4, not {width}")
        if min(grid) < 1 or prefix < 0:
            raise InvalidInput(
                f"an axial table needs patches and no fewer than 0 tokens before them, not a grid of "
                f"{grid[0]}x{grid[1]} and a prefix of {prefix}"
            )
        sides = {"separate": grid, "min": (min(grid),) * 2, "max": (max(grid),) * 2}
        if normalise not in sides:
            raise InvalidInput(f"normalise must be 'separate', 'min' or 'max', not {normalise!r}")
        y, x = (
            2 * torch.arange(0.5, length, dtype=torch.float32, device=device) / side - 1
            for length, side in zip(grid, sides[normalise], strict=True)
        )
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)  # [patches, 2]
        frequency = 1 / base ** (torch.arange(width // 4, dtype=torch.float32, device=device) * (4 / width))
        angle = (2 * math.pi * centre[:, :, None] * frequency).flatten(1)
        angle = torch.cat([angle.new_zeros(prefix, width // 2), angle])
        return cls(angle.cos(), angle.sin())

    def problem(self, x: Tensor) -> str | None:
        """Why this table is none for heads of `x` [..., D], or None."""
        if not self.cos.dtype == self.sin.dtype == torch.float32 or self.cos.shape != self.sin.shape:
            return (
                f"cos and sin must be float32 of one shape, not {self.cos.dtype} {tuple(self.cos.shape)} and "
                f"{self.sin.dtype} {tuple(self.sin.shape)}"
            )
        if self.cos.dim() != 2 or 2 * self.cos.shape[1] != x.shape[-1]:
            return (
                f"cos and sin must be [P, D/2] for a head width of {x.shape[-1]}, not {tuple(self.cos.shape)}"
            )
        if not self.cos.device == self.sin.device == x.device:
            return f"cos and sin are on {self.cos.device} and {self.sin.device}, the heads on {x.device}"
        return None


def turn(x: Tensor, rotary: Rotary, places: Tensor | None) -> Tensor:
    """The rows of `x` [B, N, H, D], or packed [T, H, D], turned by their places, in float32 and x's type."""
    rows = x.shape[-3]
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (
        (table[:rows] if places is None else table[places.long()]).to(wide)[:, None]
        for table in (rotary.cos.detach(), rotary.sin.detach())
    )
    x1, x2 = x.to(wide).chunk(2, -1)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1).to(x.dtype)
