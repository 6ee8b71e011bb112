"""From the vector of a token to the distributions of the values it stands for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from imagen_fast.models.layers import Linear
from imagen_fast.ops import pixel_cross_entropy, pixel_logistic_mixture
from imagen_fast.ops.gelu import gelu
from imagen_fast.ops.reference import logistic_mixture

WIDTH = 32
"""Of the vector of one value, where a token stands for several."""


class PixelHead(nn.Module):
    """A distribution over the levels of every value of a token, from the vector of the token.

    A token that stands for one value is projected to its levels. One of several spreads to a short vector
    each, and all share the projection from there. With `channels` above 1 the channels of a pixel are in
    order: a value's vector also gets what the earlier channels of its pixel are, times a matrix of its own,
    as PixelCNN++ does for the means of its mixture (Salimans et al. 2017, section 2.2).

    Args:
        dim: width of a token.
        values: that a token stands for.
        levels: what one value can be.
        channels: neighbouring values that are predicted one after the other; 1: each by itself.
        kind: `categorical`, or `mixture`, of `mixtures` discretised logistics.
    """

    def __init__(
        self,
        dim: int,
        values: int,
        levels: int,
        channels: int = 1,
        kind: Literal["categorical", "mixture"] = "categorical",
        mixtures: int = 10,
    ) -> None:
        super().__init__()
        self.values, self.levels, self.channels, self.kind = values, levels, channels, kind
        width = dim
        if values > 1:
            width = WIDTH
            self.spread = Linear(dim, values * width)
            nn.init.xavier_uniform_(self.spread.weight)
            nn.init.zeros_(self.spread.bias)
        if channels > 1:
            # [channel that is predicted, its vector, earlier channel]
            self.earlier = nn.Parameter(torch.zeros(channels, width, channels - 1))
        self.project = nn.Linear(width, levels if kind == "categorical" else 3 * mixtures)
        nn.init.normal_(self.project.weight, std=0.02)
        nn.init.zeros_(self.project.bias)
        if kind == "mixture":
            with torch.no_grad():
                self.project.bias[mixtures : 2 * mixtures] = torch.linspace(-1, 1, mixtures)
                self.project.bias[2 * mixtures :] = -1.0

    def hidden(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """[..., dim] -> [..., values, width].

        Args:
            known: [..., values], of which the earlier channels of each pixel are read; needed for `channels`
                above 1.
        """
        return self.condition(self.spread(tokens) if self.values > 1 else tokens, known)

    def condition(self, spread: Tensor, known: Tensor | None = None) -> Tensor:
        """As `hidden`, of tokens that were spread already: [..., values * width] -> [..., values, width]."""
        hidden = spread.unflatten(-1, (self.values, -1))
        if self.channels == 1:
            return hidden
        assert known is not None
        pixels = hidden.unflatten(-2, (-1, self.channels))  # [..., pixels, channels, width]
        scaled = known.unflatten(-1, (-1, self.channels))[..., :-1].to(hidden.dtype)
        scaled = scaled * (2 / (self.levels - 1)) - 1
        # Below the diagonal: channel c reads the channels before it.
        weight = self.earlier * hidden.new_ones(self.channels, self.channels - 1).tril(-1)[:, None]
        told = torch.einsum("...e,cwe->...cw", scaled, weight)
        return gelu(pixels + told).flatten(-3, -2)

    def loss(self, tokens: Tensor, target: Tensor, keep: Tensor | None = None) -> Tensor:
        """-mean log p(value), in nats a value, of [..., values] targets.

        Args:
            keep: [...] bool, which tokens count; None: all.
        """
        hidden = self.hidden(tokens, target)
        keep = None if keep is None else keep[..., None].expand(target.shape)
        weight, bias = self.project.weight, self.project.bias
        if self.kind == "categorical":
            return pixel_cross_entropy(hidden, weight, target, bias, keep=keep)
        return pixel_logistic_mixture(hidden, weight, target, bias, levels=self.levels, keep=keep)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """[..., width] -> float32 [..., levels]."""
        return self.distribution(self.project(hidden))

    def distribution(self, scores: Tensor) -> Tensor:
        """As `log_probabilities`, of vectors that were projected already."""
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.kind == "categorical":
            return scores.log_softmax(-1)
        every = torch.arange(self.levels, device=scores.device).expand(*scores.shape[:-1], -1)
        return logistic_mixture(scores[..., None, :], every, self.levels)

    def forward(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """log p of every level: [..., dim] -> float32 [..., values, levels]."""
        return self.log_probabilities(self.hidden(tokens, known))
