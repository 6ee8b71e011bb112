"""Our pixel transformer as the suites run it: the workload of a training step, and the step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.step import BETAS, DECAY, LEARNING_RATE, TrainingStep
from imagen_fast.kernels.cost import Work
from imagen_fast.models import PixelConfig, PixelTransformer
from imagen_fast.ops import use_backend
from imagen_fast.train import MasterAdamW

SEED = 0


def imagegpt_config(width: int, depth: int, heads: int, side: int = 32, colours: int = 512) -> PixelConfig:
    """What ImageGPT is among our pixel transformers."""
    return PixelConfig(
        image_size=(side, side),
        colours=colours,
        embed_dim=width,
        depth=depth,
        heads=heads,
        norm_eps=1e-5,
        norm="rms",
        activation="quick_gelu",
    )


def describe(config: PixelConfig) -> str:
    return f"width {config.embed_dim}, {config.depth} layers, {config.heads} heads"


@dataclass(frozen=True)
class Workload:
    """Images that lie on the device before the clock starts, the same for everyone."""

    config: PixelConfig
    batch: int
    device: torch.device

    @cached_property
    def data(self) -> tuple[Tensor]:
        """Colours [B, N, 1]."""
        draws = torch.Generator().manual_seed(SEED)
        shape = (self.batch, self.config.tokens, self.config.values)
        return (torch.randint(self.config.choices, shape, generator=draws).to(self.device),)

    def facts(self) -> dict[str, Any]:
        height, width = self.config.image_size
        return {
            "images": self.batch,
            "image": f"{height}x{width}",
            "colours": self.config.choices,
            "model": describe(self.config),
        }

    def work(self) -> Work:
        """Of a training step; the colours are 64 bits each."""
        tokens = self.config.tokens
        layers = work.pixel_transformer(self.config)
        return work.training_step(
            layers, self.batch, input_bytes=8 * self.batch * tokens, logits=tokens * self.config.choices
        )


def random_model(config: PixelConfig) -> PixelTransformer:
    """The same random weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return PixelTransformer(config)


def training_step(
    workload: Workload,
    model: PixelTransformer,
    dtype: torch.dtype,
    compiled: bool = False,
    backend: str | None = None,
    autocast: torch.dtype | None = None,
) -> TrainingStep:
    """A step of `model`, which is cast to `dtype` in place; with float32 masters where that is bf16.

    Args:
        backend: force one; the fastest that serves the device where not given.
        autocast: type of the products, apart from the weights'.
    """
    model.to(workload.device).train()
    optimizer = MasterAdamW(model, dtype, DECAY, BETAS)
    loss = torch.compile(model.loss) if compiled else model.loss

    def forward(values: Tensor) -> Tensor:
        forced = nullcontext() if backend is None else use_backend(backend)
        with forced, torch.autocast(workload.device.type, autocast, enabled=autocast is not None):
            return loss(values)

    return TrainingStep(model, forward, lambda: optimizer.step(LEARNING_RATE), workload.data, _without_bias)


def _without_bias(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of all but the head's bias, which ImageGPT does not have: ours trains it on top."""
    return {name: gradient for name, gradient in gradients.items() if name != "head.project.bias"}
