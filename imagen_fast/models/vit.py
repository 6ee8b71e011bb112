"""The backbone: a plain vision transformer that can embed just the visible patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from imagen_fast.errors import InvalidInput
from imagen_fast.models.config import ViTConfig
from imagen_fast.models.layers import Block, Context, initialise
from imagen_fast.models.positions import resize_positions, sincos_positions
from imagen_fast.ops import OnGrid, Raster, Visible
from imagen_fast.ops.modules import LayerNorm

Sizes = Literal["fixed", "divisible", "padded"]
"""Which images a backbone takes: those of its configuration, all that the patch divides, or all, with zeros
below and on the right up to a whole patch. Positions are interpolated to the grid of an image."""


class PatchEmbed(nn.Module):
    """Patches to tokens. The weight is a convolution's, as in timm; the product is a matrix product."""

    def __init__(self, config: ViTConfig, sizes: Sizes = "fixed") -> None:
        super().__init__()
        self.side = config.patch_size
        self.image_size = config.image_size
        self.sizes = sizes
        self.proj = nn.Conv2d(config.channels, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, image: Tensor, patches: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> [B, N, E], or only the patches numbered in `patches` [B, n] -> [B, n, E]."""
        image, side = self._whole(image), self.side
        tiles = image.unflatten(-2, (-1, side)).unflatten(-1, (-1, side)).permute(0, 2, 4, 1, 3, 5)
        if patches is None:
            chosen = tiles.flatten(1, 2)
        else:
            # Only the chosen patches are read from the image.
            each = torch.arange(image.shape[0], device=image.device)[:, None]
            columns = tiles.shape[2]
            chosen = tiles[each, patches // columns, patches % columns]
        weight = self.proj.weight
        return nn.functional.linear(chosen.flatten(2).to(weight.dtype), weight.flatten(1), self.proj.bias)

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches of [B, C, H, W]."""
        return -(-image.shape[-2] // self.side), -(-image.shape[-1] // self.side)

    def _whole(self, image: Tensor) -> Tensor:
        """The image in whole patches."""
        height, width = image.shape[-2:]
        if self.sizes == "fixed":
            if (height, width) != self.image_size:
                wanted = f"of {self.image_size[0]}x{self.image_size[1]} pixels"
                raise InvalidInput(f"the backbone takes images {wanted}, not {height}x{width}")
            return image
        below, right = -height % self.side, -width % self.side
        if not below and not right:
            return image
        if self.sizes == "divisible":
            wanted = f"that its patch of {self.side} pixels divides"
            raise InvalidInput(f"the backbone takes images {wanted}, not {height}x{width}")
        return nn.functional.pad(image, (0, right, 0, below))


class VisionTransformer(nn.Module):
    """A vision transformer with timm's parameter names (Dosovitskiy et al. 2021).

    Args:
        config: shapes; see `vit_config` for the named ones.
        num_classes: outputs of the head; 0 leaves it out, and the model returns pooled features.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
        sizes: which images it takes; see `Sizes`.

    Attributes:
        grad_checkpointing: whether the backward computes each block again instead of keeping what is in it.
    """

    embedding: ClassVar[type[PatchEmbed]] = PatchEmbed
    pos_embed: nn.Parameter

    def __init__(
        self, config: ViTConfig, num_classes: int = 0, drop_path: float = 0.0, sizes: Sizes = "fixed"
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.grad_checkpointing = False
        dim = config.embed_dim
        self.patch_embed = self.embedding(config, sizes)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        if config.positions == "sincos":
            self.pos_embed = nn.Parameter(sincos_positions(dim, config.grid), requires_grad=False)
        else:
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.patches, dim).normal_(std=0.02))
        rates = [drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.mlp_ratio, config.norm_eps, rate) for rate in rates
        )
        # As timm: the mean over patches is normalised after pooling, the class token before.
        token = config.pool == "token"
        self.norm = LayerNorm(dim, eps=config.norm_eps) if token else nn.Identity()
        self.fc_norm = nn.Identity() if token else LayerNorm(dim, eps=config.norm_eps)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.apply(initialise)
        if num_classes:
            nn.init.normal_(self.head.weight, std=2e-5)  # type: ignore[arg-type]

    def embed(self, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens [B, 1 + n, E] of the class token and the (visible) patches, positions added."""
        tokens = self.patch_embed(image, visible)
        table = resize_positions(self.pos_embed, self.config.grid, self.patch_embed.grid_of(image))
        positions = table[:, 1:] if visible is None else table[0, 1:][visible]
        first = (self.cls_token + table[:, :1]).expand(image.shape[0], -1, -1)
        return torch.cat([first, tokens + positions], 1)

    def forward_features(
        self, image: Tensor, visible: Tensor | None = None, context: Visible | None = None
    ) -> Tensor:
        """Normalised tokens [B, 1 + n, E], the class token first.

        Args:
            image: [B, C, H, W], normalised.
            visible: [B, n] numbers of the patches to embed; the others are never read. None: all.
            context: who may attend to whom among the tokens; None: everyone to everyone.
        """
        x = self.embed(image, visible)
        for block in self.blocks:
            x = self._through(block, x, context)
        return self.norm(x)

    def intermediates(self, image: Tensor, after: Sequence[int]) -> list[Tensor]:
        """Tokens [B, 1 + N, E] after each of the blocks numbered in `after`, not normalised.

        Blocks past the last of these are not computed.
        """
        x = self.embed(image)
        found = {}
        for number, block in enumerate(self.blocks[: max(after) + 1]):
            x = self._through(block, x)
            if number in after:
                found[number] = x
        return [found[number] for number in after]

    def predictive_features(self, image: Tensor) -> Tensor:
        """Normalised tokens [B, N, E] in raster order: token n knows the patches before n.

        The sequence is the class token and all patches but the last; each attends to itself and to those
        before it, as in AIM (El-Nouby et al. 2024).
        """
        x = self.embed(image)[:, :-1]
        context = OnGrid(Raster(), self.patch_embed.grid_of(image))
        for block in self.blocks:
            x = self._through(block, x, context)
        return self.norm(x)

    def mean_features(self, image: Tensor) -> Tensor:
        """[B, C, H, W], normalised -> [B, E]: the mean over patches."""
        return self.forward_features(image)[:, 1:].mean(1)

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, 1 + n, E] -> [B, E], as `config.pool` says."""
        return tokens[:, 0] if self.config.pool == "token" else self.fc_norm(tokens[:, 1:].mean(1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, num_classes], or pooled features [B, E] where there is no head."""
        return self.head(self.pool(self.forward_features(image)))

    def _through(self, block: nn.Module, x: Tensor, context: Context = None) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, context, use_reentrant=False)
        return block(x, context)

    def extra_repr(self) -> str:
        fields: dict[str, Any] = self.config.to_dict()
        return ", ".join(f"{k}={v}" for k, v in fields.items())
