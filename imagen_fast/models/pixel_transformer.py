"""A transformer that predicts each pixel (or patch) of an image from those that its context lets it see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.models.layers import NORMS, Block, initialise
from imagen_fast.models.pixel_config import PixelConfig
from imagen_fast.models.pixel_embed import PixelEmbed
from imagen_fast.models.pixel_head import PixelHead
from imagen_fast.models.pixel_symbols import PixelSymbols
from imagen_fast.models.positions import sincos_positions
from imagen_fast.ops import OnGrid
from imagen_fast.ops.modules import LayerNorm


class PixelBackbone(nn.Module):
    """Tokens that know what comes before them, and nothing else.

    Args:
        config: shapes; see `pixel_config` for the named ones.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
    """

    def __init__(self, config: PixelConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.symbols = PixelSymbols(config)
        self.embed = PixelEmbed(config)
        # Learned; it begins as the fixed table.
        self.pos_embed = nn.Parameter(sincos_positions(dim, config.grid, prefix=0))
        rates = [drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.mlp_ratio, config.norm_eps, rate, config.norm, config.activation)
            for rate in rates
        )
        self.blocks.apply(initialise)
        self.norm: nn.Module = NORMS[config.norm](dim, eps=config.norm_eps)

    def forward_features(self, values: Tensor) -> Tensor:
        """Normalised tokens [B, N, E]: token n knows nothing of the values [B, N, U] at place n or later."""
        context = OnGrid(self.config.attended, self.config.grid)
        x = self.embed(values) + self.pos_embed
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)

    def mean_features(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> [B, E]: the mean over tokens. The last pixel or patch is in none of them."""
        return self.forward_features(self.symbols(images)).mean(1)

    def extra_repr(self) -> str:
        fields: dict[str, Any] = self.config.to_dict()
        return ", ".join(f"{k}={v}" for k, v in fields.items())


class PixelTransformer(PixelBackbone):
    """p(image) as a product of p(value | the values that its context lets it see).

    With the context `Raster` it is iGPT (Chen et al. 2020); with `Neighbourhood(1)`, the conditional
    p(I[j,k] | I[j-1,k-1], I[j-1,k], I[j,k-1]), whatever its depth. A larger neighbourhood is that of one
    block: what a prediction depends on grows with every block, as in all networks of windows.
    """

    def __init__(self, config: PixelConfig, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path)
        in_order = config.channels if config.colours is None else 1
        self.head = PixelHead(
            config.embed_dim, config.values, config.choices, in_order, config.head, config.mixtures
        )

    def loss(self, values: Tensor) -> Tensor:
        """-mean log p(value), in nats a value, of [B, N, U]; what lies in the prefix does not count."""
        prefix = self.config.context.prefix
        keep = None
        if prefix:
            places = torch.arange(self.config.tokens, device=values.device)
            keep = (places >= prefix).expand(values.shape[:2])
        return self.head.loss(self.forward_features(values), values, keep)

    def forward(self, values: Tensor) -> Tensor:
        """log p of every level of every value [B, N, U]: float32 [B, N, U, V]."""
        return self.head(self.forward_features(values), values)


class PixelClassifier(PixelBackbone):
    """A classifier on the mean over tokens (Chen et al. 2020, section 2.3), of uint8 images [B, C, H, W]."""

    def __init__(self, config: PixelConfig, num_classes: int, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path)
        # As our vision transformer: the mean is normalised after pooling.
        self.norm = nn.Identity()
        self.fc_norm = LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.head = nn.Linear(config.embed_dim, num_classes)
        nn.init.normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, num_classes]."""
        return self.head(self.fc_norm(self.mean_features(images)))
