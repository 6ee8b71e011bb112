"""Pixels as the network sees them, and pixels as levels to be predicted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelNormalizer(nn.Module):
    """uint8 [B, C, H, W] to (x / 255 - mean) / std in float32, on the device, and back.

    mean, std: per channel, on the scale 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def _apply(self, fn, recurse=True):
        # A cast to bf16 must not round the statistics: only the device follows the model.
        mean, std = self.mean, self.std
        moved = super()._apply(fn, recurse)
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return moved

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std

    def undo(self, x: Tensor) -> Tensor:
        """Normalised pixels back to the scale 0..1, clipped."""
        return (x.float() * self.std + self.mean).clamp(0, 1)


def pixel_levels(images: Tensor, levels: int) -> Tensor:
    """uint8 intensities to the nearest of `levels` equal steps, 0..levels - 1, still uint8."""
    if levels == 256:
        return images
    return (images.float() * ((levels - 1) / 255)).round().to(torch.uint8)


class PixelHead(nn.Module):
    """Logits over the levels of every pixel of a patch, from the token of the patch.

    A token spreads to one short vector a pixel; all pixels share the projection from it to the levels.

    Args:
        dim: width of a token.
        values: pixels times channels of a patch.
        levels: intensities a pixel can take, at most 256.
        width: length of a pixel's vector.
    """

    def __init__(self, dim: int, values: int, levels: int, width: int = 32) -> None:
        super().__init__()
        self.values = values
        self.spread = nn.Linear(dim, values * width)
        self.levels = nn.Linear(width, levels)
        nn.init.xavier_uniform_(self.spread.weight)
        nn.init.zeros_(self.spread.bias)
        nn.init.normal_(self.levels.weight, std=0.02)
        nn.init.zeros_(self.levels.bias)

    def hidden(self, tokens: Tensor) -> Tensor:
        """[B, m, dim] -> [B, m, values, width]"""
        return self.spread(tokens).unflatten(-1, (self.values, -1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, m, values, levels]."""
        return self.levels(self.hidden(tokens))


def pixel_negative_log_likelihood(
    hidden: Tensor, head: nn.Linear, target: Tensor, rows: int = 65536
) -> Tensor:
    """-mean log p(pixel | what is visible), in nats a pixel channel.

    The logits of `rows` pixels exist at a time: they are made again in the backward, so memory does not grow
    with the batch.

    Args:
        hidden: [..., width]; one vector a pixel.
        target: [...] integer levels.
    """
    flat, wanted = hidden.flatten(0, -2), target.flatten().long()

    def part(h: Tensor, t: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head(h).float(), t, reduction="sum")

    parts = [
        torch.utils.checkpoint.checkpoint(part, h, t, use_reentrant=False)
        for h, t in zip(flat.split(rows), wanted.split(rows), strict=True)
    ]
    return torch.stack(parts).sum() / wanted.numel()
