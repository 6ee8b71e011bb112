"""The masked objective of a model of timm: Xie et al. 2022 (SimMIM)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from imagen_fast.data import Augmentation, Loader, Source
from imagen_fast.models import Backbone, TimmConfig
from imagen_fast.objectives import SimMIMConfig, SimMIMObjective
from imagen_fast.tasks.pictures import draw_reconstructions
from imagen_fast.tasks.recipes.recipe import image_side
from imagen_fast.tasks.reconstruction import repaint
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.tasks.start import load_timm_start, resolved_start

# Xie et al. 2022, section 4.1, of images of 224 pixels; smaller ones have at least sixteen blocks.
MASK_RATIO, BLOCK, LEAST_BLOCKS = 0.6, 32, 4


@dataclass
class SimMIMRecipe:
    """A model of timm, what is hidden from it, and what it starts from."""

    backbone: TimmConfig
    masking: SimMIMConfig
    start: str | None
    resolved: dict[str, Any]
    augment: Augmentation | None = None

    @classmethod
    def of(cls, settings: PretrainSettings, data: str, source: Source) -> Self:
        assert settings.timm_model is not None
        side = image_side(settings, source.native_size)
        masking = SimMIMConfig(
            mask_ratio=MASK_RATIO if settings.mask_ratio is None else settings.mask_ratio,
            mask=settings.mask,  # type: ignore[arg-type]
            block=settings.patch_size or max(1, min(BLOCK, side // LEAST_BLOCKS)),
        )
        start = resolved_start(settings.start)
        resolved = {
            "model": settings.model,
            "start": start,
            "image_size": side,
            "patch_size": masking.block,
            "mask_ratio": masking.mask_ratio,
        }
        return cls(TimmConfig(settings.timm_model, (side, side), source.channels), masking, start, resolved)

    @property
    def facts(self) -> dict[str, Any]:
        return {"encoder": self.backbone.to_dict(), "objective": self.masking.to_dict()}

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> SimMIMObjective:
        objective = SimMIMObjective(self.backbone, self.masking, mean, std, seed)
        # A ratio that leaves nothing to see is told before a run exists.
        objective.hidden(1, 0, torch.device("cpu"))
        return objective

    def prepare(self, objective: nn.Module, loader: Loader, seed: int) -> None:
        assert isinstance(objective, SimMIMObjective)
        if self.start is not None:
            load_timm_start(objective.backbone, self.start)

    def trained_backbone(self, objective: nn.Module) -> Backbone:
        assert isinstance(objective, SimMIMObjective)
        return objective.backbone

    def evaluate(
        self, objective: nn.Module, seen: Loader, held: Loader, device: torch.device
    ) -> dict[str, Any]:
        return {}

    def describe(self, figures: dict[str, Any]) -> str | None:
        return None

    def draw(self, objective: nn.Module, images: Tensor, file: Path) -> None:
        assert isinstance(objective, SimMIMObjective)
        hidden = objective.hidden(len(images), 0, images.device)
        draw_reconstructions(file, images.cpu(), hidden.cpu(), repaint(objective, images, hidden).cpu())
