"""Tokens of a pixel transformer: shifted, so that none holds what it is to predict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.models.layers import Linear
from imagen_fast.models.pixel_config import MOST_LOOKED_UP, PixelConfig
from imagen_fast.ops import Raster
from imagen_fast.ops.embedding import embedding


class PixelEmbed(nn.Module):
    """Tokens that hold their neighbours, so that none holds what it is to predict.

    In raster order a token holds the one before it (Chen et al. 2020, iGPT); in the other contexts those to
    its left, above it and between the two, each embedded in a way of its own, added up. Where there is none,
    a vector that is learned stands for it.

    Attributes:
        neighbours: (down, along) to each; in raster order the one is along the sequence.
    """

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.config = config
        self.sequence = isinstance(config.context, Raster)
        self.neighbours = [(0, 1)] if self.sequence else [(0, 1), (1, 0), (1, 1)]
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
            inside = (row >= 0) & (column >= 0)
            found.append(torch.where(inside, row * width + column, tokens))
        return torch.stack(found)

    def forward(self, values: Tensor) -> Tensor:
        """[B, N, U] -> [B, N, E]: token n holds the neighbours of place n, never n itself."""
        parts = self.embed(values)
        if self.sequence:
            first = self.start.expand(values.shape[0], 1, -1)
            return torch.cat([first, parts[:, :-1, 0]], 1)
        height, width = self.config.grid
        on_grid = parts.unflatten(1, (height, width))
        total: Tensor | None = None
        for kind, (down, along) in enumerate(self.neighbours):
            held = self.start[kind].expand(values.shape[0], height, width, -1).clone()
            held[:, down:, along:] = on_grid[:, : height - down, : width - along, kind]
            total = held if total is None else total + held
        assert total is not None
        return total.flatten(1, 2)
