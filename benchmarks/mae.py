"""Our masked autoencoder as the train suite runs it: the workload, and a training step on it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.step import BETAS, DECAY, LEARNING_RATE, TrainingStep
from imagen_fast.data.masks import keep_hidden, masks_from_noise, visible_count
from imagen_fast.kernels.cost import Work
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, ViTConfig
from imagen_fast.ops import masked_pixel_mse, use_backend
from imagen_fast.train import MasterAdamW

SEED = 0


@dataclass(frozen=True)
class Workload:
    """Images and noise that lie on the device before the clock starts, the same for everyone.

    Args:
        checked: images of the batch that the answers are compared on.
    """

    encoder: ViTConfig
    batch: int
    device: torch.device
    checked: int
    hidden_share: float = 0.75

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """Normalised pixels [B, C, H, W] in float32, and noise [B, N]: the least of it stays visible."""
        draws = torch.Generator().manual_seed(SEED)
        images = torch.randn(self.batch, self.encoder.channels, *self.encoder.image_size, generator=draws)
        noise = torch.rand(self.batch, self.encoder.patches, generator=draws)
        return images.to(self.device), noise.to(self.device)

    @property
    def hidden(self) -> int:
        return self.encoder.patches - visible_count(self.encoder.patches, self.hidden_share)

    def facts(self) -> dict[str, Any]:
        height, width = self.encoder.image_size
        return {
            "images": self.batch,
            "image": f"{height}x{width}",
            "patch": self.encoder.patch_size,
            "hidden_share": self.hidden_share,
        }

    def work(self, decoder: DecoderConfig, predicted: int) -> Work:
        """Of a training step; the images are float32."""
        visible = self.encoder.patches - self.hidden
        layers = work.masked_autoencoder(self.encoder, decoder, visible, predicted)
        pixels = self.encoder.patches * self.encoder.patch_values
        return work.training_step(layers, self.batch, input_bytes=4 * self.batch * pixels)


class Pretraining(nn.Module):
    """From images and noise to the loss; as in the peers, the masks are made in the step.

    Args:
        predicted: hidden patches that are predicted, of all that are hidden.
    """

    def __init__(self, model: MaskedAutoencoder, hidden_share: float, predicted: float = 1.0) -> None:
        super().__init__()
        self.model, self.hidden_share, self.predicted = model, hidden_share, predicted

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        masks = keep_hidden(masks_from_noise(noise, self.hidden_share), self.predicted, seed=SEED)
        return masked_pixel_mse(self.model(images, masks.visible, masks.hidden), images, masks.hidden)


def random_model(encoder: ViTConfig, decoder: DecoderConfig) -> MaskedAutoencoder:
    """The same random weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return MaskedAutoencoder(encoder, decoder)


def training_step(
    workload: Workload,
    model: MaskedAutoencoder,
    dtype: torch.dtype,
    predicted: float = 1.0,
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
    objective = Pretraining(model, workload.hidden_share, predicted)
    optimizer = MasterAdamW(model, dtype, DECAY, BETAS)
    network = torch.compile(objective) if compiled else objective

    def forward(images: Tensor, noise: Tensor) -> Tensor:
        forced = nullcontext() if backend is None else use_backend(backend)
        with forced, torch.autocast(workload.device.type, autocast, enabled=autocast is not None):
            return network(images, noise)

    return TrainingStep(model, forward, lambda: optimizer.step(LEARNING_RATE), workload.data)
