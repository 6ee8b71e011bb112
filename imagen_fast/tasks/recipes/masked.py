"""The masked objective: He et al. 2021 (MAE), or with the cross decoder Fu et al. 2024 (CrossMAE)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from imagen_fast.data import Augmentation, Loader, Source
from imagen_fast.data.masks import hidden_pixels
from imagen_fast.models import (
    Backbone,
    DecoderConfig,
    VisionTransformer,
    ViTConfig,
    decoder_config,
    vit_config,
)
from imagen_fast.objectives import MaskedConfig, MaskedObjective
from imagen_fast.tasks.pictures import draw_reconstructions
from imagen_fast.tasks.recipes.recipe import image_side
from imagen_fast.tasks.reconstruction import reconstruct
from imagen_fast.tasks.session import FOLDER_PRESET, PRESETS
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.tasks.start import load_vit_start, resolved_start

MASK_RATIO = 0.75  # He et al. 2021, figure 5


@dataclass
class MaskedRecipe:
    """A vision transformer, a decoder and what is hidden."""

    backbone: ViTConfig
    decoder: DecoderConfig
    masking: MaskedConfig
    resolved: dict[str, Any]
    start: str | None = None
    augment: Augmentation | None = None

    @classmethod
    def of(cls, settings: PretrainSettings, data: str, source: Source) -> Self:
        _, model, patch = PRESETS.get(data, FOLDER_PRESET)
        model = settings.model or model
        side = image_side(settings, source.native_size)
        backbone = vit_config(
            model, image_size=(side, side), patch_size=settings.patch_size or patch, channels=source.channels
        )
        decoder = decoder_config(
            model,
            kind=settings.decoder,
            embed_dim=settings.decoder_dim,
            depth=settings.decoder_depth,
            heads=settings.decoder_heads,
        )
        predict = settings.predict
        if predict is None:
            predict = 1.0 if decoder.kind == "full" else 1 / 3
        masking = MaskedConfig(
            mask_ratio=MASK_RATIO if settings.mask_ratio is None else settings.mask_ratio,
            mask=settings.mask,  # type: ignore[arg-type]
            loss=settings.loss,  # type: ignore[arg-type]
            predict=predict,
            levels=source.levels if settings.levels is None else settings.levels,
        )
        start = resolved_start(settings.start)
        resolved = {
            "model": model,
            "start": start,
            "image_size": side,
            "patch_size": backbone.patch_size,
            "decoder_dim": decoder.embed_dim,
            "decoder_depth": decoder.depth,
            "decoder_heads": decoder.heads,
            "mask_ratio": masking.mask_ratio,
            "predict": predict,
            "levels": masking.levels,
        }
        return cls(backbone, decoder, masking, resolved, start)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "encoder": self.backbone.to_dict(),
            "decoder": self.decoder.to_dict(),
            "objective": self.masking.to_dict(),
        }

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> MaskedObjective:
        objective = MaskedObjective(self.backbone, self.decoder, self.masking, mean, std, seed)
        # A ratio that leaves nothing to see is told before a run exists.
        objective.masks(1, 0, torch.device("cpu"))
        return objective

    def prepare(self, objective: nn.Module, loader: Loader, seed: int) -> None:
        if self.start is not None:
            encoder = self.trained_backbone(objective)
            assert isinstance(encoder, VisionTransformer)
            load_vit_start(encoder, self.start)

    def trained_backbone(self, objective: nn.Module) -> Backbone:
        assert isinstance(objective, MaskedObjective)
        return objective.model.encoder

    def evaluate(
        self, objective: nn.Module, seen: Loader, held: Loader, device: torch.device
    ) -> dict[str, Any]:
        return {}

    def describe(self, figures: dict[str, Any]) -> str | None:
        return None

    def draw(self, objective: nn.Module, images: Tensor, file: Path) -> None:
        assert isinstance(objective, MaskedObjective)
        # Of all hidden patches, whatever share was predicted in training.
        objective.config = replace(objective.config, predict=1.0)
        masks = objective.masks(len(images), 0, images.device)
        draw_reconstructions(
            file,
            images.cpu(),
            hidden_pixels(masks, self.backbone.grid, self.backbone.patch_size).cpu(),
            reconstruct(objective, images, masks).cpu(),
        )
