"""Public functional operations: each with a plain reference, a CPU and a Triton back-end."""

from imagen_fast.ops.contexts import Rows, Visible
from imagen_fast.ops.dispatch import BACKENDS, use_backend
from imagen_fast.ops.functional import masked_patch_attention, masked_pixel_mse
from imagen_fast.ops.rotary import Rotary

__all__ = [
    "BACKENDS",
    "Rotary",
    "Rows",
    "Visible",
    "masked_patch_attention",
    "masked_pixel_mse",
    "use_backend",
]
