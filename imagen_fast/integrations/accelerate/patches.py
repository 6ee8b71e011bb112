"""The projection of patches: a convolution whose windows do not overlap is one matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imagen_fast.integrations.accelerate.swaps import ByClass, Trial, Types, working_type
from imagen_fast.integrations.accelerate.trial import IMAGES, Work

# So many patches a side, in a trial: those of an image of 224 pixels in patches of 16.
_SIDE = 14


class Conv2d(nn.Conv2d):
    imagen_fast_types: Types

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.kernel_size
        whole = x.dim() == 4 and x.shape[2] % height == 0 and x.shape[3] % width == 0
        if not whole or working_type(x) not in self.imagen_fast_types:
            return super().forward(x)
        return project(x, self.weight, self.bias)


def project(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d` with a stride of the kernel's size: [B, C, H, W], [E, C, P, Q] -> [B, E, H / P, W / Q].

    The result lies in memory as [B, H / P, W / Q, E]: its rows of tokens are a view.
    """
    batch, channels, height, width = image.shape
    embed, _, p, q = weight.shape
    grid = image.reshape(batch, channels, height // p, p, width // q, q)
    patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * p * q)
    tokens = functional.linear(patches, weight.flatten(1), bias)
    return tokens.view(batch, height // p, width // q, embed).permute(0, 3, 1, 2)


class Projection(ByClass):
    """Of convolutions, those that project patches."""

    def fits(self, module: nn.Module) -> bool:
        return super().fits(module) and _projects_patches(module)


def _projects_patches(conv: Any) -> bool:
    plain = conv.padding in ("valid", (0, 0)) and conv.dilation == (1, 1) and conv.groups == 1
    return plain and conv.stride == conv.kernel_size and min(conv.kernel_size) > 1


def _trial(conv: Any) -> Trial:
    weight = conv.weight
    size = tuple(weight.shape)

    def work(dtype: torch.dtype, autocast: bool) -> Work:
        embed, channels, height, width = size
        own = torch.float32 if autocast else dtype
        image = torch.randn(IMAGES, channels, _SIDE * height, _SIDE * width, dtype=own, device=weight.device)
        made_up = torch.randn(size, dtype=own, device=weight.device, requires_grad=True)
        bias = torch.zeros(embed, dtype=own, device=weight.device, requires_grad=True)

        def theirs(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return (
                nn.functional.conv2d(image, weight, bias, stride=(height, width)).flatten(2).transpose(1, 2)
            )

        def ours(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return project(image, weight, bias).flatten(2).transpose(1, 2)

        return Work(theirs, ours, (image, made_up, bias), dtype if autocast else None)

    return Trial(size, work)


SWAP = Projection("embedding", nn.Conv2d, Conv2d, tried=_trial)
