"""Images drawn from a pixel transformer, and images completed by it.

A step computes every token whose neighbours are known: one at a time in raster order; in a quadrant all
of an anti-diagonal, which do not depend on each other at any depth, so that an image of H x W tokens takes
H + W - 1 steps. Keys and values of earlier tokens are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.models.layers import Block
from imagen_fast.models.pixel_config import PixelConfig
from imagen_fast.models.pixel_transformer import PixelTransformer
from imagen_fast.ops import Raster
from imagen_fast.ops.generation import Layer, Norm, PreNormBlock, few_rows_linear, step_block, step_views
from imagen_fast.ops.modules import LayerNorm


@dataclass(frozen=True)
class Choice:
    """How a value is drawn from its distribution.

    Args:
        temperature: by which logits are divided; 0 takes the likeliest value.
        top_k: only so many of the likeliest values can be drawn; None: all.
        top_p: only the likeliest values that together have this probability (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0.0:
            raise InvalidInput(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InvalidInput(f"top k must be at least 1, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidInput(f"top p must lie above 0 and at most at 1, not {self.top_p}")

    def draw(self, log_probabilities: Tensor, uniform: Tensor) -> Tensor:
        """Values [...] from log-probabilities [..., V] and numbers [...], uniform on 0..1."""
        if self.temperature == 0.0:
            return log_probabilities.argmax(-1)
        scores = (log_probabilities / self.temperature).double()
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, -1).values[..., -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        probability = scores.softmax(-1)
        if self.top_p < 1.0:
            ordered, place = probability.sort(dim=-1, descending=True, stable=True)
            # Values before which the wanted probability is not yet there.
            kept = ordered.cumsum(-1) - ordered < self.top_p
            probability = probability * torch.zeros_like(kept).scatter(-1, place, kept)
        reached = probability.cumsum(-1)
        whole = reached[..., -1:]
        # The first value that the number lies below; one without probability is never the first. A number so
        # near to 1 that the product is the whole takes the last that has one.
        return ((reached <= uniform[..., None] * whole) & (reached < whole)).sum(-1)


def steps(config: PixelConfig, known: int = 0, one_by_one: bool = False) -> Iterator[Tensor]:
    """The places (raster numbers) of the tokens of each step, in order; the first step has the `known` ones.

    Args:
        known: so many tokens, the first in raster order, are there already.
        one_by_one: a token a step, whatever the context allows.
    """
    place, width = torch.arange(config.tokens), config.grid[1]
    time = place
    if not (one_by_one or isinstance(config.context, Raster)):
        time = place // width + place % width
    if known:
        yield place[:known]
    rest, time = place[known:], time[known:]
    yield from rest[time.argsort(stable=True)].split(time.unique(return_counts=True)[1].tolist())


def _weights(block: Block) -> PreNormBlock:
    attention, mlp = block.attn, block.mlp
    norm1, norm2 = (
        Norm(x.weight, x.bias if isinstance(x, LayerNorm) else None, x.eps)
        for x in (block.norm1, block.norm2)
    )
    qkv, proj, fc1, fc2 = (Layer(x.weight, x.bias) for x in (attention.qkv, attention.proj, mlp.fc1, mlp.fc2))
    return PreNormBlock(norm1, qkv, proj, norm2, fc1, fc2, attention.heads, block.activation)


class Generation:
    """A batch of images while they are generated: their values so far, and what the model remembers of them.

    To be used under `torch.no_grad()`.

    Args:
        model: in evaluation mode.
        values: [B, N, U], of which the first `known` tokens are read.
    """

    def __init__(
        self, model: PixelTransformer, values: Tensor, known: int = 0, one_by_one: bool = False
    ) -> None:
        config = model.config
        prefix = config.context.prefix
        if known < prefix:
            raise InvalidInput(
                f"the model was trained with a prefix of {prefix} tokens, which must be given; {known} are"
            )
        device = values.device
        self.model, self.values = model, values.long()
        self.steps = list(steps(config, known, one_by_one))
        window = config.attended.window(config.grid)
        self.views = step_views(model.pos_embed, window, self.steps)
        order, sizes = torch.cat(self.steps), [len(step) for step in self.steps]
        # Of every step at once: a step is short, and each operation of it counts.
        self.positions = model.pos_embed[:, order].split(sizes, 1)
        self.sources = model.embed.sources(device)[:, order].split(sizes, 1)
        self.steps = [step.to(device) for step in self.steps]
        batch, weight = len(values), model.pos_embed
        kinds, dim = model.embed.start.shape
        # What each place is to its neighbours; the last row stands for places outside of the image.
        self.parts = weight.new_zeros(batch, config.tokens + 1, kinds, dim)
        self.parts[:, -1] = model.embed.start
        self.parts[:, :known] = model.embed.embed(self.values[:, :known])
        self.blocks = [step_block(_weights(block), batch, window) for block in model.blocks]  # type: ignore[arg-type]
        head = model.head
        self.spread = few_rows_linear(head.spread.weight, head.spread.bias) if head.values > 1 else None
        self.project = few_rows_linear(head.project.weight, head.project.bias)

    def tokens(self, step: int) -> Tensor:
        """The model's output [B, m, E] for the places of a step, once all steps before it are known."""
        x = self.positions[step]
        for kind, source in enumerate(self.sources[step]):
            x = x + self.parts[:, source, kind]
        for block in self.blocks:
            x = block(x, self.views[step])
        return self.model.norm(x)

    def draw(self, tokens: Tensor, uniform: Tensor, choice: Choice) -> Tensor:
        """Values [B, m, U] of the tokens [B, m, E]: one channel of all their pixels after the other."""
        head = self.model.head
        spread = tokens if self.spread is None else self.spread(tokens)
        drawn = torch.zeros_like(uniform, dtype=torch.int64)
        for channel in range(head.channels):
            each = slice(channel, None, head.channels)
            hidden = head.condition(spread, drawn)[..., each, :]
            drawn[..., each] = choice.draw(head.distribution(self.project(hidden)), uniform[..., each])
        return drawn

    def know(self, step: int, values: Tensor) -> None:
        """The values [B, m, U] of a step have been drawn."""
        places = self.steps[step]
        self.values[:, places] = values
        self.parts[:, places] = self.model.embed.embed(values)


@torch.inference_mode()
def generate(
    model: PixelTransformer,
    images: int,
    *,
    given: Tensor | None = None,
    known: int = 0,
    choice: Choice | None = None,
    seed: int = 0,
    first: int = 0,
    one_by_one: bool = False,
) -> Tensor:
    """Draw images, or complete given ones.

    What is drawn for image i depends on (seed, first + i) and on its own given values alone, not on the batch
    or on the order of the steps.

    Args:
        images: how many.
        given: [images, N, U] values, of which the first `known` tokens in raster order are kept.
        choice: temperature, top-k, top-p.
        first: number of the first image, where several calls make one set.
        one_by_one: generate a token a step, also where the context allows more.

    Returns:
        Values [images, N, U], int64; `model.symbols.images` makes pictures of them.

    Raises:
        InvalidInput: the model was trained with a prefix and fewer tokens than it has are known.
    """
    config, choice = model.config, choice or Choice()
    device = model.pos_embed.device
    shape = (images, config.tokens, config.values)
    values = torch.zeros(shape, dtype=torch.int64, device=device)
    if given is not None:
        if tuple(given.shape) != shape or not 0 <= known <= config.tokens:
            raise InvalidInput(
                f"given must be {list(shape)}, 0 to {config.tokens} of its tokens known, not "
                f"{list(given.shape)} with {known}"
            )
        values[:, :known] = given[:, :known].to(device)
    uniform = _uniform(seed, first, shape).to(device)
    state = Generation(model, values, known, one_by_one)
    for step, places in enumerate(state.steps):
        tokens = state.tokens(step)
        if step > 0 or not known:
            state.know(step, state.draw(tokens, uniform[:, places], choice))
    return state.values


def _uniform(seed: int, first: int, shape: tuple[int, int, int]) -> Tensor:
    """Numbers on 0..1, of each image by itself."""
    drawn = [np.random.default_rng((seed, first + i)).random(shape[1:]) for i in range(shape[0])]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(shape, dtype=torch.float64)
