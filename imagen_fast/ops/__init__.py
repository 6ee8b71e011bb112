"""Public functional operations: each with a plain reference, a CPU and a Triton back-end."""

from imagen_fast.ops import modules
from imagen_fast.ops.contexts import CausalContext, Neighbourhood, OnGrid, Quadrant, Raster, Rows, Visible
from imagen_fast.ops.dispatch import BACKENDS, use_backend
from imagen_fast.ops.functional import (
    causal_pixel_attention,
    causal_pixel_softmax,
    masked_patch_attention,
    masked_pixel_mse,
    pixel_cross_entropy,
    pixel_logistic_mixture,
)
from imagen_fast.ops.rotary import Rotary

__all__ = [
    "BACKENDS",
    "CausalContext",
    "Neighbourhood",
    "OnGrid",
    "Quadrant",
    "Raster",
    "Rotary",
    "Rows",
    "Visible",
    "causal_pixel_attention",
    "causal_pixel_softmax",
    "masked_patch_attention",
    "masked_pixel_mse",
    "modules",
    "pixel_cross_entropy",
    "pixel_logistic_mixture",
    "use_backend",
]
