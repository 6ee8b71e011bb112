"""The causal objective: a pixel transformer, its likelihood in bits, and the halves that it completes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from imagen_fast.data import Augmentation, Loader, Source
from imagen_fast.errors import InvalidInput
from imagen_fast.models import CONTEXTS, Backbone, PixelBackbone, PixelConfig, pixel_config
from imagen_fast.models.sampling import generate
from imagen_fast.objectives import CausalObjective
from imagen_fast.ops import CausalContext, Neighbourhood, Quadrant, Raster
from imagen_fast.tasks.likelihood import bits_per_dim, independent_bits, uniform_bits
from imagen_fast.tasks.palette import find_palette
from imagen_fast.tasks.pictures import draw_completions
from imagen_fast.tasks.recipes.recipe import image_side
from imagen_fast.tasks.settings import PretrainSettings

# Model and side of a patch: of digits and of small photographs as many tokens as a CPU can take.
PRESETS = {"digits": ("nano", 1), "photos": ("tiny", 4)}
FOLDER_PRESET = ("small", 16)
RADIUS = 3


@dataclass
class CausalRecipe:
    """The shapes of a pixel transformer. It is trained on images as they are: random views would change what
    is likely."""

    backbone: PixelConfig
    resolved: dict[str, Any]
    augment: Augmentation | None = field(default_factory=Augmentation)

    @classmethod
    def of(cls, settings: PretrainSettings, data: str, source: Source) -> Self:
        model, patch = PRESETS.get(data, FOLDER_PRESET)
        model = settings.model or model
        side = image_side(settings, source.native_size)
        if settings.context not in CONTEXTS:
            raise InvalidInput(f"context must be one of {', '.join(CONTEXTS)}, not {settings.context!r}")
        radius = settings.radius
        if settings.context == "neighbourhood":
            radius = RADIUS if radius is None else radius
            context: CausalContext = Neighbourhood(radius)
        elif radius is not None:
            raise InvalidInput(f"a radius is of the context neighbourhood, not of {settings.context}")
        else:
            context = Raster() if settings.context == "raster" else Quadrant()
        if settings.palette is not None and settings.levels is not None:
            raise InvalidInput("give levels of intensities or a palette of colours, not both")
        config = pixel_config(
            model,
            image_size=(side, side),
            patch_size=settings.patch_size or patch,
            channels=source.channels,
            levels=source.levels if settings.levels is None else settings.levels,
            colours=settings.palette,
            context=context,
            head=settings.head,
            mixtures=settings.mixtures,
        )
        resolved = {
            "model": model,
            "image_size": side,
            "patch_size": config.patch_size,
            "levels": config.levels if settings.palette is None else None,
            "radius": radius,
        }
        return cls(config, resolved)

    @property
    def facts(self) -> dict[str, Any]:
        return {"encoder": self.backbone.to_dict()}

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> CausalObjective:
        return CausalObjective(self.backbone)

    def prepare(self, objective: nn.Module, loader: Loader, seed: int) -> None:
        assert isinstance(objective, CausalObjective)
        if self.backbone.colours is not None:
            objective.model.symbols.palette.copy_(find_palette(loader, self.backbone.colours, seed))

    def trained_backbone(self, objective: nn.Module) -> Backbone:
        """The pixel transformer without its head."""
        assert isinstance(objective, CausalObjective)
        backbone = PixelBackbone(self.backbone)
        weights = objective.model.state_dict()
        backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
        return backbone

    def evaluate(
        self, objective: nn.Module, seen: Loader, held: Loader, device: torch.device
    ) -> dict[str, Any]:
        """Bits per dimension of held-out images, beside those of models that know less."""
        assert isinstance(objective, CausalObjective)
        return {
            "bits_per_dim": bits_per_dim(objective, held, device),
            "bits_per_dim_independent": independent_bits(objective.model.symbols, seen, held),
            "bits_per_dim_uniform": uniform_bits(self.backbone),
        }

    def describe(self, figures: dict[str, Any]) -> str | None:
        if "bits_per_dim" not in figures:
            return None
        return (
            f"{figures['bits_per_dim']:.3f} bits per dimension on held-out images; every pixel by itself "
            f"{figures['bits_per_dim_independent']:.3f}, uniform {figures['bits_per_dim_uniform']:.3f}"
        )

    def draw(self, objective: nn.Module, images: Tensor, file: Path) -> None:
        """The lower halves of the images as drawn by the model, beside the true ones."""
        assert isinstance(objective, CausalObjective)
        model = objective.model.eval()
        rows, columns = self.backbone.grid
        known = (rows // 2) * columns
        made = generate(model, len(images), given=model.symbols(images), known=known)
        draw_completions(
            file,
            images.cpu(),
            rows // 2 * self.backbone.patch_size,
            model.symbols.images(made).cpu(),
        )
