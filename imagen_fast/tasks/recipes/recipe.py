"""What pretraining asks of an objective's recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagen_fast.data import Augmentation, Loader
from imagen_fast.models import Backbone, BackboneConfig
from imagen_fast.tasks.session import FOLDER_IMAGE_SIZE
from imagen_fast.tasks.settings import PretrainSettings


class Recipe(Protocol):
    """The shapes that settings and data stand for, and what is done with them.

    Attributes:
        backbone: what the run leaves.
        resolved: settings that follow from the data or the model.
        augment: the views it is trained on where the user does not say; None: those that suit the data.
    """

    resolved: dict[str, Any]
    augment: Augmentation | None

    @property
    def backbone(self) -> BackboneConfig: ...

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        ...

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> nn.Module:
        """The module that is trained; raises where the shapes leave nothing to learn from."""
        ...

    def prepare(self, objective: nn.Module, loader: Loader, seed: int) -> None:
        """What a new run, but no resumed one, takes from the data before it begins."""
        ...

    def trained_backbone(self, objective: nn.Module) -> Backbone: ...

    def evaluate(
        self, objective: nn.Module, seen: Loader, held: Loader, device: torch.device
    ) -> dict[str, Any]:
        """Figures of the trained objective itself, of images that training saw and of some it never did."""
        ...

    def describe(self, figures: dict[str, Any]) -> str | None:
        """The figures of `evaluate` as a sentence."""
        ...

    def draw(self, objective: nn.Module, images: Tensor, file: Path) -> None:
        """A picture of what the model makes of uint8 images [B, C, H, W]."""
        ...


def image_side(settings: PretrainSettings, native: int | None) -> int:
    return settings.image_size or native or FOLDER_IMAGE_SIZE
