"""The projection of patches: a convolution whose windows do not overlap is one matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imagen_fast.integrations.accelerate.exchange import made_of
from imagen_fast.integrations.accelerate.swaps import ByClass, Kind, Trial, Types, Undo, working_type
from imagen_fast.integrations.accelerate.trial import IMAGES, Work
from imagen_fast.integrations.sdpa import TYPES, plain

# Where an embedding does not tell: an image of 224 pixels in patches of 16.
_USUAL_GRID = (14, 14)


class Conv2d(nn.Conv2d):
    # Of one that was undone while somebody held its forward.
    imagen_fast_types = frozenset[torch.dtype]()

    def forward(self, x: Tensor) -> Tensor:
        if not plain(x):
            return super().forward(x)
        height, width = self.kernel_size
        fits = x.dim() == 4 and x.shape[1] == self.in_channels and x.numel() > 0
        whole = fits and x.shape[2] % height == 0 and x.shape[3] % width == 0
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


class Projection:
    """In an embedding of transformers or timm, the convolution that projects patches.

    Other convolutions may be somebody's own, who counts on how their outputs lie in memory.
    """

    kind: Kind = "embedding"
    types: Types = TYPES

    def fits(self, module: nn.Module) -> bool:
        library = type(module).__module__.partition(".")[0]
        known = library in ("transformers", "timm") and "Embed" in type(module).__name__
        return known and (_projection(module) is not None or _adapted(module))

    def refusal(self, module: nn.Module) -> str | None:
        if _adapted(module):
            return "an adapter is around its projection"
        return "its projection has a forward of its own" if "forward" in vars(_projection(module)) else None

    def remark(self, module: nn.Module) -> str | None:
        return None

    def trial(self, module: nn.Module, model: nn.Module) -> Trial | None:
        return _trial(_projection(module), _grid(module))

    def apply(self, module: nn.Module, types: Types) -> Undo:
        return ByClass(self.kind, nn.Conv2d, Conv2d).apply(_projection(module), types)


def _projection(embedding: nn.Module) -> Any:
    found = (child for child in embedding.children() if made_of(child, nn.Conv2d))
    return next(filter(_projects_patches, found), None)


def _adapted(embedding: nn.Module) -> bool:
    """By peft."""
    within = (getattr(child, "base_layer", None) for child in embedding.children())
    return any(made_of(layer, nn.Conv2d) for layer in within if layer is not None)


def _projects_patches(conv: Any) -> bool:
    plain = conv.padding in ("valid", (0, 0)) and conv.dilation == (1, 1) and conv.groups == 1
    return plain and conv.stride == conv.kernel_size and min(conv.kernel_size) > 1


def _grid(embedding: Any) -> tuple[int, int]:
    """Rows and columns of patches, where an embedding says what images it takes."""
    size = getattr(embedding, "img_size", None) or getattr(embedding, "image_size", None)
    if size is None:
        return _USUAL_GRID
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    p, q = _projection(embedding).kernel_size
    return height // p, width // q


def _trial(conv: Any, grid: tuple[int, int]) -> Trial:
    weight = conv.weight
    size = tuple(weight.shape)

    def work(dtype: torch.dtype, autocast: bool) -> Work:
        embed, channels, height, width = size
        own = torch.float32 if autocast else dtype
        shape = IMAGES, channels, grid[0] * height, grid[1] * width
        image = torch.randn(shape, dtype=own, device=weight.device)
        made_up = torch.randn(size, dtype=own, device=weight.device, requires_grad=True)
        bias = torch.zeros(embed, dtype=own, device=weight.device, requires_grad=True)

        def theirs(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            made = nn.functional.conv2d(image, weight, bias, stride=(height, width))
            return made.flatten(2).transpose(1, 2)

        def ours(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return project(image, weight, bias).flatten(2).transpose(1, 2)

        return Work(theirs, ours, (image, made_up, bias), dtype if autocast else None)

    return Trial((size, grid), work)


SWAP = Projection()
