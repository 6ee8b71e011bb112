"""A supervised training step of a vision transformer: the workload, whoever's model it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from imagen_fast.benchmarks import work
from imagen_fast.kernels.cost import Work
from imagen_fast.models import ViTConfig

SEED = 0


@dataclass(frozen=True)
class Workload:
    """Images and their classes that lie on the device before the clock starts, the same for everyone."""

    encoder: ViTConfig
    batch: int
    device: torch.device
    classes: int = 1000

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """Normalised pixels [B, C, H, W] in float32, and classes [B]."""
        draws = torch.Generator().manual_seed(SEED)
        images = torch.randn(self.batch, self.encoder.channels, *self.encoder.image_size, generator=draws)
        classes = torch.randint(self.classes, (self.batch,), generator=draws)
        return images.to(self.device), classes.to(self.device)

    def facts(self) -> dict[str, Any]:
        height, width = self.encoder.image_size
        return {
            "images": self.batch,
            "image": f"{height}x{width}",
            "patch": self.encoder.patch_size,
            "classes": self.classes,
        }

    def work(self) -> Work:
        """Of a training step; the images are float32, the classes 64 bits each."""
        layers = work.classifier(self.encoder, self.classes)
        values = 4 * self.encoder.patches * self.encoder.patch_values + 8
        return work.training_step(layers, self.batch, self.batch * values, self.classes)
