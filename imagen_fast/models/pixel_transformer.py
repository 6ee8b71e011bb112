"""A transformer that predicts each pixel (or patch) of an image from those that its context lets it see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.models.layers import NORMS, Block, Linear, initialise
from imagen_fast.models.pixel_config import MOST_LOOKED_UP, PixelConfig
from imagen_fast.models.pixel_head import PixelHead
from imagen_fast.models.pixel_symbols import PixelSymbols
from imagen_fast.models.positions import sincos_positions
from imagen_fast.ops import Neighbourhood, OnGrid, Raster
from imagen_fast.ops.embedding import embedding


class PixelEmbed(nn.Module):
    """Tokens that hold their neighbours, so that none holds what it is to predict.

    In raster order a token holds the one before it (Chen et al. 2020, iGPT); in the other contexts those to
    its left, above it and between the two (and, where the context sees to the right, the one after that
    above). Each neighbour is embedded in a way of its own, and they are added up; where there is none, a
    vector that is learned stands for it.

    Attributes:
        neighbours: (down, along) to each; in raster order the one is along the sequence.
    """

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.config = config
        self.sequence = isinstance(config.context, Raster)
        self.neighbours = [(0, 1)] if self.sequence else [(0, 1), (1, 0), (1, 1)]
        if isinstance(config.context, Neighbourhood) and config.context.of == "raster":
            self.neighbours.append((1, -1))
        width = len(self.neighbours) * config.embed_dim
        self.looked_up = config.colours is not None or config.patch_size <= MOST_LOOKED_UP
        if self.looked_up:
            self.table = nn.Parameter(torch.empty(config.values * config.choices, width).normal_(std=0.02))
        else:
            self.project = Linear(config.values, width)
        self.start = nn.Parameter(torch.empty(len(self.neighbours), config.embed_dim).normal_(std=0.02))

    def embed(self, values: Tensor) -> Tensor:
        """What the tokens of the values [..., U] are to each kind of neighbour: [..., K, E]."""
        c = self.config
        if self.looked_up:
            first = torch.arange(c.values, device=values.device) * c.choices
            rows = embedding(values.long() + first, self.table)
            parts = rows.squeeze(-2) if c.values == 1 else rows.sum(-2)
        else:
            scaled = values.to(self.project.weight.dtype) * (2 / (c.levels - 1)) - 1
            parts = self.project(scaled)
        return parts.unflatten(-1, (len(self.neighbours), -1))

    def sources(self, device: torch.device) -> Tensor:
        """[K, N]: the place that each neighbour of each place is; N where it is outside of the image."""
        width, tokens = self.config.grid[1], self.config.tokens
        place = torch.arange(tokens, device=device)
        if self.sequence:
            return torch.where(place > 0, place - 1, tokens)[None]
        found = []
        for down, along in self.neighbours:
            row, column = place // width - down, place % width - along
            inside = (row >= 0) & (column >= 0) & (column < width)
            found.append(torch.where(inside, row * width + column, tokens))
        return torch.stack(found)

    def forward(self, values: Tensor) -> Tensor:
        """[B, N, U] -> [B, N, E]: token n holds the neighbours of place n, never n itself."""
        parts = self.embed(values)
        if self.sequence:
            first = self.start.expand(len(values), 1, -1)
            return torch.cat([first, parts[:, :-1, 0]], 1)
        height, width = self.config.grid
        on_grid = parts.unflatten(1, (height, width))
        total: Tensor | None = None
        for kind, (down, along) in enumerate(self.neighbours):
            held = self.start[kind].expand(len(values), height, width, -1).clone()
            low, high = max(along, 0), width + min(along, 0)
            held[:, down:, low:high] = on_grid[:, : height - down, low - along : high - along, kind]
            total = held if total is None else total + held
        assert total is not None
        return total.flatten(1, 2)


class PixelTransformer(nn.Module):
    """p(image) as a product of p(value | the values that its context lets it see).

    With the context `Raster` it is iGPT (Chen et al. 2020); with `Neighbourhood(1)`, the conditional
    p(I[j,k] | I[j-1,k-1], I[j-1,k], I[j,k-1]), whatever its depth. A larger neighbourhood is that of one
    block: what a prediction depends on grows with every block, as in all networks of windows.

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
        self.norm = NORMS[config.norm](dim, eps=config.norm_eps)
        self.blocks.apply(initialise)
        in_order = config.channels if config.colours is None else 1
        self.head = PixelHead(dim, config.values, config.choices, in_order, config.head, config.mixtures)

    @property
    def context(self) -> OnGrid:
        """Who attends to whom among the tokens."""
        return OnGrid(self.config.attended, self.config.grid)

    def forward_features(self, values: Tensor) -> Tensor:
        """Normalised tokens [B, N, E]: token n knows nothing of the values [B, N, U] at place n or later."""
        x = self.embed(values) + self.pos_embed
        for block in self.blocks:
            x = block(x, self.context)
        return self.norm(x)

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

    def extra_repr(self) -> str:
        fields: dict[str, Any] = self.config.to_dict()
        return ", ".join(f"{k}={v}" for k, v in fields.items())
