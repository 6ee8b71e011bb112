"""The supervised objective: an image to its class."""

from __future__ import annotations

import torch
from torch import nn

from imagen_fast.data import Batch
from imagen_fast.models import ClassifierModel
from imagen_fast.objectives.output import Output
from imagen_fast.objectives.pixels import inputs_of


class ClassificationObjective(nn.Module):
    """Cross entropy of a backbone with a head.

    Args:
        model: with a head.
        mean, std: of the data, per channel on the scale 0..1; images come as uint8.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).
    """

    def __init__(
        self,
        model: ClassifierModel,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalize = inputs_of(model.config, mean, std)
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch, step: int) -> Output:
        assert batch.labels is not None
        logits = self.model(self.normalize(batch.images)).float()
        loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return Output(loss, {"train_accuracy": accuracy})
