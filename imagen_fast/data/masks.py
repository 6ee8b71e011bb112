"""Which patches are hidden: index pairs, the same number in every image so that batches stay dense."""

import math
from typing import NamedTuple

import numpy as np
import torch

from imagen_fast.data.seeds import MASK, PREDICT, generator, torch_seed
from imagen_fast.errors import InvalidInput

# Bao et al. 2021, Algorithm 1: a block covers at least 16 patches, its height over its width lies within
# 0.3 and 1 / 0.3.
SMALLEST_BLOCK = 16
NARROWEST_BLOCK = 0.3
# Nearly every image needs fewer (at 14x14 and 75% about ten); what then is missing is filled at random.
MOST_BLOCKS = 32


class Masks(NamedTuple):
    """Ascending indices of patches, row by row of the grid: visible int64 [B, n], hidden int64 [B, N - n]."""

    visible: torch.Tensor
    hidden: torch.Tensor


def random_masks(
    batch: int,
    grid: tuple[int, int],
    ratio: float,
    *,
    seed: int,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> Masks:
    """Hide the share `ratio` of the patches of each image, every set equally likely.

    `grid` is (rows, columns). The noise is drawn on `device` without a host synchronisation, and depends
    on (seed, step) and the kind of device. Raises `InvalidInput` for a ratio that is outside (0, 1) or
    leaves nothing hidden or nothing visible. Source: He et al., Masked Autoencoders, 2021.
    """
    draws = torch.Generator(device).manual_seed(torch_seed(MASK, seed, step))
    noise = torch.rand(batch, grid[0] * grid[1], generator=draws, device=device)
    return masks_from_noise(noise, ratio)


def masks_from_noise(noise: torch.Tensor, ratio: float) -> Masks:
    """The sets that MAE takes from `noise` [B, N]: the int(N * (1 - ratio)) smallest stay visible.

    The same `ids_keep` as facebookresearch/mae and transformers' ViTMAE, here in ascending order. Raises
    `InvalidInput` as `random_masks` does.
    """
    count = visible_count(noise.shape[1], ratio)
    order = torch.argsort(noise, dim=1)
    return Masks(order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values)


def blockwise_masks(
    batch: int,
    grid: tuple[int, int],
    ratio: float,
    *,
    seed: int,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> Masks:
    """Hide rectangles of patches until the share `ratio` is reached, then trim to exactly that number.

    Blocks are drawn as in Bao et al., BEiT, 2021, Algorithm 1. What the last block hides too much is made
    visible again at random, and what is missing after many blocks is added at random. On small grids the
    smallest block shrinks to a quarter of what is hidden. Depends on (seed, step) alone. Raises
    `InvalidInput` as `random_masks` does.
    """
    rows, columns = grid
    hidden = rows * columns - visible_count(rows * columns, ratio)
    rng = generator(MASK, seed, step)
    # For each patch the round in which it was first covered: the order in which patches are hidden, and so
    # trimming the last block and filling up are one sort.
    first = np.full((batch, rows, columns), MOST_BLOCKS, dtype=np.float32)
    active = np.arange(batch)
    for number, draws in enumerate(rng.random((MOST_BLOCKS, 4, batch), dtype=np.float32)):
        covered = first[active]
        missing = hidden - np.count_nonzero(covered < MOST_BLOCKS, axis=(1, 2))
        going = missing > 0
        active, covered = active[going], covered[going]
        if not len(active):
            break
        first[active] = np.where(
            _blocks(draws[:, active], missing[going], hidden, grid), np.minimum(covered, number), covered
        )
    order = np.argsort(
        first.reshape(batch, -1) + rng.random((batch, rows * columns), dtype=np.float32), axis=1
    )
    both = torch.from_numpy(order).to(device)
    return Masks(both[:, hidden:].sort(dim=1).values, both[:, :hidden].sort(dim=1).values)


def keep_hidden(masks: Masks, share: float, *, seed: int, step: int = 0) -> Masks:
    """The masks with only a `share` of the hidden patches of each image, drawn at random, at least one.

    For decoders that predict hidden patches independently (Fu et al., CrossMAE, 2024).
    """
    if share == 1.0:
        return masks
    batch, hidden = masks.hidden.shape
    device = masks.hidden.device
    draws = torch.Generator(device).manual_seed(torch_seed(PREDICT, seed, step))
    noise = torch.rand(batch, hidden, generator=draws, device=device)
    chosen = torch.argsort(noise, dim=1)[:, : max(1, round(hidden * share))].sort(dim=1).values
    return Masks(masks.visible, masks.hidden.gather(1, chosen))


def _blocks(draws: np.ndarray, missing: np.ndarray, hidden: int, grid: tuple[int, int]) -> np.ndarray:
    """One rectangle an image from uniform `draws` [4, B]: bool [B, rows, columns]."""
    rows, columns = grid
    least = min(SMALLEST_BLOCK, max(1, hidden // 4))
    area = least + draws[0] * np.maximum(missing - least, 0)
    ratio = np.exp((2 * draws[1] - 1) * -math.log(NARROWEST_BLOCK))
    height = np.clip(np.rint(np.sqrt(area * ratio)), 1, rows)
    width = np.clip(np.rint(np.sqrt(area / ratio)), 1, columns)
    top = np.floor(draws[2] * (rows - height + 1))
    left = np.floor(draws[3] * (columns - width + 1))
    return _within(top, height, rows)[:, :, None] & _within(left, width, columns)[:, None, :]


def _within(start: np.ndarray, length: np.ndarray, total: int) -> np.ndarray:
    distance = np.arange(total, dtype=np.float32) - start[:, None]
    return (distance >= 0) & (distance < length[:, None])


def hidden_pixels(masks: Masks, grid: tuple[int, int], side: int) -> torch.Tensor:
    """bool [B, 1, rows * side, columns * side], true where a pixel is hidden; `side` is that of a patch."""
    hidden = torch.zeros(
        len(masks.hidden), grid[0] * grid[1], dtype=torch.bool, device=masks.hidden.device
    ).scatter_(1, masks.hidden, True)
    return hidden.unflatten(1, grid)[:, None].repeat_interleave(side, 2).repeat_interleave(side, 3)


def visible_count(patches: int, ratio: float) -> int:
    """How many of `patches` stay visible: int(patches * (1 - ratio)), as in MAE.

    Raises `InvalidInput` where the ratio lies outside (0, 1) or one of the two sets would be empty.
    """
    if not 0 < ratio < 1:
        raise InvalidInput(f"mask ratio must lie strictly between 0 and 1, not {ratio}")
    count = int(patches * (1 - ratio))
    if not 0 < count < patches:
        side = "visible" if count == 0 else "hidden"
        raise InvalidInput(
            f"mask ratio {ratio} leaves none of {patches} patches {side}; at least one is needed"
        )
    return count
