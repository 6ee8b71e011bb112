"""The joint objective: hidden patches filled in and next patches predicted, by one backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch

from imagen_fast.data import Source
from imagen_fast.objectives import JointObjective, Weights
from imagen_fast.tasks.recipes.masked import MaskedRecipe
from imagen_fast.tasks.settings import PretrainSettings


@dataclass
class JointRecipe(MaskedRecipe):
    """The masked recipe, and the weights of the two losses."""

    weights: Weights = field(default_factory=Weights)

    @classmethod
    def of(cls, settings: PretrainSettings, data: str, source: Source) -> Self:
        recipe = super().of(settings, data, source)
        recipe.weights = Weights(settings.masked_weight, settings.causal_weight)
        return recipe

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> JointObjective:
        objective = JointObjective(self.backbone, self.decoder, self.masking, mean, std, seed, self.weights)
        objective.masks(1, 0, torch.device("cpu"))
        return objective
