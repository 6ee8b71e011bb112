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
    rows, columns = (_interpolation(*sizes, table.device) for sizes in zip(old, new, strict=True))
    grid = table[:, prefix:].double().unflatten(1, old)
    grid = torch.einsum("ry,byxe->brxe", rows, grid)
    grid = torch.einsum("cx,brxe->brce", columns, grid)
    return torch.cat([table[:, :prefix], grid.flatten(1, 2).to(table.dtype)], 1)


def _interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix [new, old] of the interpolation of a line.

    Products with it have a gradient in graphs compiled for any size, which PyTorch's interpolation has not.
    In float64, which autocast leaves alone.
    """
    lines = torch.eye(old, dtype=torch.float64, device=device)[None, None]
    return torch.nn.functional.interpolate(
        lines, size=(new, old), mode="bicubic", antialias=True, align_corners=False
    )[0, 0]
