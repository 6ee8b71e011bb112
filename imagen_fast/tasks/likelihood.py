"""How likely a model finds images, in bits per dimension, beside models that know less."""

from __future__ import annotations

import math

import torch

from imagen_fast.data import Loader
from imagen_fast.models import PixelConfig
from imagen_fast.models.pixel_symbols import PixelSymbols
from imagen_fast.objectives import CausalObjective


@torch.inference_mode()
def bits_per_dim(objective: CausalObjective, loader: Loader, device: torch.device) -> float:
    """-mean log2 p(value) over the values of all images in their fixed view; of a palette, of its colours."""
    objective.to(device).eval()
    total, images = 0.0, 0
    for batch in loader.once():
        total += float(objective.loss(batch.images.to(device)).loss) * len(batch.images)
        images += len(batch.images)
    return total / images / math.log(2)


def uniform_bits(config: PixelConfig) -> float:
    """Of a model that finds all values equally likely."""
    return math.log2(config.choices)


@torch.inference_mode()
def independent_bits(symbols: PixelSymbols, seen: Loader, held: Loader) -> float:
    """Of a model in which every value has a distribution of its own, counted in the images of `seen`.

    One more of each value is counted than there is, so that none is impossible (Laplace's rule).
    """
    c = symbols.config
    symbols = symbols.cpu()
    width = c.tokens * c.values
    counts = torch.ones(width * c.choices, dtype=torch.float64)
    place = torch.arange(width) * c.choices
    for batch in seen.once():
        number = (symbols(batch.images).flatten(1).long() + place).flatten()
        counts += torch.bincount(number, minlength=len(counts))
    counts = counts.view(width, c.choices)
    bits = -(counts / counts.sum(1, keepdim=True)).log2()
    total, images = 0.0, 0
    for batch in held.once():
        value = symbols(batch.images).flatten(1).long()
        total += float(bits.flatten()[value + place].sum())
        images += len(batch.images)
    return total / (images * width)
