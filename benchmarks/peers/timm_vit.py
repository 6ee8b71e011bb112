"""timm's VisionTransformer, trained to tell classes; the step is that of transformers' models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.classification import SEED
from imagen_fast.benchmarks.peers import TIMM, trainer
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.models import ViTConfig

(models,) = TIMM.load("models")


def random_model(encoder: ViTConfig, classes: int) -> nn.Module:
    """The same random weights at every call; in all but its sizes what `timm.create_model` makes."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return models.VisionTransformer(
            img_size=encoder.image_size,
            patch_size=encoder.patch_size,
            in_chans=encoder.channels,
            num_classes=classes,
            embed_dim=encoder.embed_dim,
            depth=encoder.depth,
            num_heads=encoder.heads,
            mlp_ratio=encoder.mlp_ratio,
        )


def training_step(
    model: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype, compiled: bool = False
) -> TrainingStep:
    def loss(images: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(images), classes)

    return trainer.training_step(model, loss, batch, dtype, compiled)
