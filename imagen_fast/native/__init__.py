"""The only door to the compiled modules: typed calls that check, then pass addresses.

Importing this never fails: `available()` says whether the CPU kernels are there, `unavailable_because()` why
not, `build_info()` what was built. A call into a module that is missing raises `BackendUnavailable`.
"""

from imagen_fast.native import cuda
from imagen_fast.native.adamw import AdamwParameter, adamw_step, gradient_norm
from imagen_fast.native.attention import attention_among_rows, attention_pays
from imagen_fast.native.causal_attention import attention_on_grid
from imagen_fast.native.causal_softmax import causal_softmax_backward, causal_softmax_forward
from imagen_fast.native.decode_batch import (
    PIXEL_TYPES,
    Filter,
    decode_views,
    gpu_decoder_has_engine,
    no_gpu_decoder_because,
    picture_sizes,
)
from imagen_fast.native.features import (
    available,
    build_info,
    cpu_features,
    unavailable_because,
    use_instruction_set,
)
from imagen_fast.native.gelu import gelu_backward, gelu_forward
from imagen_fast.native.generation import PackedLinear, StepBlock, StepCache, StepView
from imagen_fast.native.jpeg import JpegError, decode_jpeg, jpeg_available, jpeg_size
from imagen_fast.native.memory import keep_freed_memory
from imagen_fast.native.norm import norm_backward, norm_forward
from imagen_fast.native.nvjpeg import find_nvjpeg
from imagen_fast.native.pixel_likelihood import PixelLikelihood, cross_entropy, logistic_mixture
from imagen_fast.native.pixel_mse import masked_pixel_mse_backward, masked_pixel_mse_forward
from imagen_fast.native.powers_of_two import powers_of_two

__all__ = [
    "PIXEL_TYPES",
    "AdamwParameter",
    "Filter",
    "JpegError",
    "PackedLinear",
    "PixelLikelihood",
    "StepBlock",
    "StepCache",
    "StepView",
    "adamw_step",
    "attention_among_rows",
    "attention_on_grid",
    "attention_pays",
    "available",
    "build_info",
    "causal_softmax_backward",
    "causal_softmax_forward",
    "cpu_features",
    "cross_entropy",
    "cuda",
    "decode_jpeg",
    "decode_views",
    "find_nvjpeg",
    "gelu_backward",
    "gelu_forward",
    "gpu_decoder_has_engine",
    "gradient_norm",
    "jpeg_available",
    "jpeg_size",
    "keep_freed_memory",
    "logistic_mixture",
    "masked_pixel_mse_backward",
    "masked_pixel_mse_forward",
    "no_gpu_decoder_because",
    "norm_backward",
    "norm_forward",
    "picture_sizes",
    "powers_of_two",
    "unavailable_because",
    "use_instruction_set",
]
