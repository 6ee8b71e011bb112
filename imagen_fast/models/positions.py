"""Where a patch lies: the fixed table of MAE, and learned tables brought to another grid."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(dim: int, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Two-dimensional sine and cosine embedding [1, prefix + rows * columns, dim] (MAE's `pos_embed.py`).

    The first half of the width encodes the column, the second the row, each as sines then cosines;
    the `prefix` tokens (the class token) get zeros.
    """
    rows, columns = grid
    quarter = dim // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)

    def encode(position: Tensor) -> Tensor:
        angle = position.to(torch.float64)[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], 1)

    column = encode(torch.arange(columns)).repeat(rows, 1)
    row = encode(torch.arange(rows)).repeat_interleave(columns, 0)
    table = torch.cat([torch.zeros(prefix, dim, dtype=torch.float64), torch.cat([column, row], 1)])
    return table.float()[None]


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table [1, prefix + rows * columns, E] for another grid, bicubic and antialiased as in timm."""
    if old == new:
        return table
    prefix = table.shape[1] - old[0] * old[1]
    grid = table[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, size=new, mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([table[:, :prefix], grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], 1)
