"""Public functional operations: each with a plain reference, a CPU and a Triton back-end."""

from imagen_fast.ops.contexts import Rows, Visible
from imagen_fast.ops.dispatch import BACKENDS, use_backend
from imagen_fast.ops.functional import masked_patch_attention, masked_pixel_mse

__all__ = ["BACKENDS", "Rows", "Visible", "masked_patch_attention", "masked_pixel_mse", "use_backend"]
