"""Images as what is predicted of them: intensities on a number of levels, or colours of a palette."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.models.pixel_config import PixelConfig
from imagen_fast.ops.patches import patchify, unpatchify

_AT_ONCE = 1 << 16  # pixels whose distances to all colours are in memory at a time


def pixel_levels(images: Tensor, levels: int) -> Tensor:
    """uint8 intensities to the nearest of `levels` equal steps, 0..levels - 1, still uint8."""
    if levels == 256:
        return images
    return (images.float() * ((levels - 1) / 255)).round().to(torch.uint8)


class PixelSymbols(nn.Module):
    """The values of an image's tokens [B, N, U], in the order in which they are predicted, and back.

    A token's values lie by row, column and channel. Of intensities a value is 0 to levels - 1; of a palette,
    the number of the nearest of its colours.

    Attributes:
        palette: uint8 [colours, C], part of the weights; empty where values are intensities.
    """

    palette: Tensor

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.config = config
        # Bytes, so that no cast of the model touches them.
        shape = (config.colours or 0, config.channels)
        self.register_buffer("palette", torch.zeros(shape, dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> [B, N, U], uint8 where that holds every value, else int16."""
        c = self.config
        if c.colours is None:
            return patchify(pixel_levels(images, c.levels), c.patch_size)
        pixels = images.movedim(1, -1).flatten(0, -2)  # [B*H*W, C]
        colours = self.palette.float()
        nearest = [torch.cdist(part.float(), colours).argmin(1) for part in pixels.split(_AT_ONCE)]
        numbers = torch.cat(nearest).to(torch.uint8 if c.colours <= 256 else torch.int16)
        return patchify(numbers.view(images.shape[0], 1, *images.shape[2:]), c.patch_size)

    def images(self, values: Tensor) -> Tensor:
        """[B, N, U] -> uint8 [B, C, H, W]."""
        c = self.config
        whole = unpatchify(values, c.patch_size, *c.image_size)
        if c.colours is not None:
            return self.palette[whole[:, 0].long()].movedim(-1, 1)
        levels = whole if c.levels == 256 else (whole.float() * (255 / (c.levels - 1))).round()
        return levels.to(torch.uint8)
