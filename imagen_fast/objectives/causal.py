"""The causal objective: predict each pixel (or patch) from those before it."""

from __future__ import annotations

import math

from torch import Tensor, nn

from imagen_fast.data import Batch
from imagen_fast.models import PixelConfig, PixelTransformer
from imagen_fast.objectives.output import Output


class CausalObjective(nn.Module):
    """The negative log-likelihood of images under a pixel transformer, mean over their values.

    In nats as the loss, in bits as the metric `bits_per_dim`; of a palette a value is a pixel's colour.
    """

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.model = PixelTransformer(config)

    def forward(self, batch: Batch, step: int) -> Output:
        return self.loss(batch.images)

    def loss(self, images: Tensor) -> Output:
        """The loss of uint8 images [B, C, H, W]."""
        loss = self.model.loss(self.model.symbols(images))
        return Output(loss, {"bits_per_dim": loss.detach() / math.log(2)})
