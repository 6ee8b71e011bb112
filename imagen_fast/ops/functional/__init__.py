"""The public operations, a file each: shapes, checks, and one line of dispatch.

Back-ends only compute; what may be passed is decided here, once.
"""

from imagen_fast.ops.functional.causal_pixel_attention import causal_pixel_attention, causal_pixel_softmax
from imagen_fast.ops.functional.masked_patch_attention import masked_patch_attention
from imagen_fast.ops.functional.masked_pixel_mse import masked_pixel_mse
from imagen_fast.ops.functional.pixel_cross_entropy import pixel_cross_entropy
from imagen_fast.ops.functional.pixel_logistic_mixture import pixel_logistic_mixture

__all__ = [
    "causal_pixel_attention",
    "causal_pixel_softmax",
    "masked_patch_attention",
    "masked_pixel_mse",
    "pixel_cross_entropy",
    "pixel_logistic_mixture",
]
