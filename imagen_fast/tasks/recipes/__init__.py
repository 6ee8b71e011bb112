"""What the pretraining objectives differ in, a file each: shapes, loss, pictures, figures.

A new objective is a file here, listed in `recipe_for`.
"""

from __future__ import annotations

from imagen_fast.data import Source
from imagen_fast.errors import InvalidInput
from imagen_fast.tasks.recipes.recipe import Recipe
from imagen_fast.tasks.settings import OBJECTIVES, PretrainSettings

__all__ = ["Recipe", "recipe_for"]


def recipe_for(settings: PretrainSettings, data: str, source: Source) -> Recipe:
    """The recipe of an objective, with what follows from the data.

    Raises:
        InvalidInput: an unknown objective, an option of another one, or shapes that do not go together.
    """
    if settings.objective not in OBJECTIVES:
        raise InvalidInput(f"objective must be one of {', '.join(OBJECTIVES)}, not {settings.objective!r}")
    settings.refuse_foreign()
    if settings.objective == "causal":
        from imagen_fast.tasks.recipes.causal import CausalRecipe

        return CausalRecipe.of(settings, data, source)
    if settings.objective == "joint":
        from imagen_fast.tasks.recipes.joint import JointRecipe

        return JointRecipe.of(settings, data, source)
    if settings.timm_model is not None:
        from imagen_fast.tasks.recipes.simmim import SimMIMRecipe

        return SimMIMRecipe.of(settings, data, source)
    from imagen_fast.tasks.recipes.masked import MaskedRecipe

    return MaskedRecipe.of(settings, data, source)
