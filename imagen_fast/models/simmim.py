"""SimMIM (Xie et al. 2022): any backbone sees the whole image, some of it hidden, and predicts raw pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.errors import InvalidInput


class SimMIM(nn.Module):
    """A backbone that gives a map of features, a value for what is hidden, and a head of one layer.

    Hidden are pixels, before the backbone, so that it need not know of it. They all take one learned value a
    channel, which begins at 0: of normalised images that is the mean, the least conspicuous of all; a black
    patch is an edge as no image has it, and a convolution carries it into what is visible (Li et al. 2023,
    A2MIM).

    Args:
        backbone: [B, C, H, W] to [B, width, H / stride, W / stride].
        width: channels of its map.
        stride: pixels along a side that one place of the map stands for.
        channels: C.
    """

    def __init__(self, backbone: nn.Module, width: int, stride: int, channels: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = stride
        self.mask_token = nn.Parameter(torch.zeros(channels, 1, 1))
        self.head = nn.Sequential(nn.Conv2d(width, stride**2 * channels, 1), nn.PixelShuffle(stride))

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        """Every pixel as predicted, [B, C, H, W].

        Args:
            image: normalised, [B, C, H, W].
            hidden: bool [B, 1, H, W]; what the image has there is never read.

        Raises:
            InvalidInput: another shape or type, or a backbone whose map is not of `stride`.
        """
        shape = (image.shape[0], 1, *image.shape[2:])
        if hidden.dtype != torch.bool or hidden.shape != shape:
            raise InvalidInput(f"hidden must be bool {shape}, not {hidden.dtype} {tuple(hidden.shape)}")
        if not image.is_floating_point():
            raise InvalidInput(f"image must be normalised, and floating point, not {image.dtype}")
        seen = torch.where(hidden, self.mask_token, image.to(self.mask_token.dtype))
        found = self.head(self.backbone(seen))
        if found.shape != image.shape:
            raise InvalidInput(
                f"a map of stride {self.stride} was expected of the backbone: its own gives "
                f"{tuple(found.shape)} for images {tuple(image.shape)}"
            )
        return found
