"""Pixels as the network sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.models import BackboneConfig, PixelConfig


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


class RawPixels(nn.Identity):
    """For models that take bytes as they are."""


def inputs_of(config: BackboneConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """What turns uint8 images into what a backbone takes."""
    return RawPixels() if isinstance(config, PixelConfig) else PixelNormalizer(mean, std)
