"""Images to patches and back, in the order of MAE."""

from __future__ import annotations

from torch import Tensor


def patchify(image: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> [B, N, P*P*C]: patches in raster order, the pixels of each by row, column, channel."""
    batch, channels, height, width = image.shape
    grid = image.reshape(batch, channels, height // patch, patch, width // patch, patch)
    count = (height // patch) * (width // patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, count, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """[B, N, P*P*C] -> [B, C, H, W], the opposite of `patchify`."""
    batch = patches.shape[0]
    grid = patches.reshape(batch, height // patch, width // patch, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def chosen_patches(image: Tensor, patch: int, chosen: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, m, P*P*C]: the patches numbered in `chosen` [B, m]."""
    patches = patchify(image, patch)
    return patches.gather(1, chosen.long()[..., None].expand(-1, -1, patches.shape[-1]))
