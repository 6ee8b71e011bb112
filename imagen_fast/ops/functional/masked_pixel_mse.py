"""The loss of a masked autoencoder: contract, checks and dispatch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference
from imagen_fast.ops.cpu import masked_pixel_mse as cpu
from imagen_fast.ops.dispatch import choose


def masked_pixel_mse(
    prediction: Tensor,
    image: Tensor,
    hidden: Tensor | None = None,
    *,
    normalise: bool = True,
    eps: float = 1e-6,
    backend: str | None = None,
) -> Tensor:
    """The loss of a masked autoencoder straight from the image (He et al. 2021, section 3).

    The mean over the hidden patches of the mean squared error of their pixels. Patches lie in raster
    order, the pixels of one by (row, column, channel). With `normalise` the target of a patch is
    (x - mean) / sqrt(variance + eps), with the unbiased variance over all of its values. The patchified
    target never exists in memory.

    Args:
        prediction: [B, M, P*P*C]; row m of an image predicts the patch that `hidden` says.
        image: [B, C, H, W], floating point.
        hidden: [B, N] bool: row m is patch m and counts where true; or [B, M] integers: row m predicts
            patch hidden[b, m]; or None: every patch counts. Integers must lie in [0, N), which is checked
            on the CPU only, since checking on a GPU would wait for it.
        normalise: normalise the target per patch.
        eps: added to the variance, in squared pixel units.

    Returns:
        A scalar in float32; 0 where no patch is hidden.
    """
    _check(prediction, image, hidden, normalise)
    listed = hidden is not None and hidden.dtype != torch.bool
    which = (hidden, None) if listed else (None, hidden)  # patch numbers, or which rows count

    def refusal(name: str) -> str | None:
        if name != "reference" and image.requires_grad and torch.is_grad_enabled():
            return "it gives no gradient to the image"
        if name == "triton":
            from imagen_fast.kernels import masked_pixel_mse as kernel

            return kernel.supports(prediction, image, *which, normalise)
        return cpu.refusal(prediction, image) if name == "cpu" else None

    chosen = choose("masked_pixel_mse", prediction.device, refusal, backend)
    if chosen == "reference":
        return reference.masked_pixel_mse(prediction, image, hidden, normalise, eps)
    if chosen == "triton":
        from imagen_fast.kernels import masked_pixel_mse as kernel

        op = kernel.masked_pixel_mse
    else:
        op = cpu.masked_pixel_mse
    return op(prediction, image, *which, normalise, eps)


def _check(prediction: Tensor, image: Tensor, hidden: Tensor | None, normalise: bool) -> None:
    if prediction.dim() != 3 or image.dim() != 4 or len(prediction) != len(image):
        raise InvalidInput(
            "prediction must be [B, M, P*P*C] and image [B, C, H, W] of as many images, not "
            f"{tuple(prediction.shape)} and {tuple(image.shape)}"
        )
    if not (prediction.is_floating_point() and image.is_floating_point()):
        raise InvalidInput(
            f"prediction and image must be floating point, not {prediction.dtype} and {image.dtype}"
        )
    channels, height, width = image.shape[1:]
    # Numbers also where a compiler has symbols.
    patch = math.isqrt(int(prediction.shape[-1]) // max(int(channels), 1))
    if patch < 1 or patch * patch * channels != prediction.shape[-1]:
        raise InvalidInput(
            f"the last dimension of prediction must be P*P*{channels} for a whole patch side P, "
            f"not {prediction.shape[-1]}"
        )
    if height % patch or width % patch:
        raise InvalidInput(f"a patch of {patch} pixels does not divide an image of {height}x{width}")
    if normalise and prediction.shape[-1] == 1:
        raise InvalidInput("a patch of one value has no variance to be normalised by; give normalise=False")
    patches = (height // patch) * (width // patch)
    if hidden is not None and hidden.shape != prediction.shape[:2]:
        raise InvalidInput(
            f"hidden must be {tuple(prediction.shape[:2])}, one entry a row of prediction, "
            f"not {tuple(hidden.shape)}"
        )
    if hidden is None or hidden.dtype == torch.bool:
        if prediction.shape[1] != patches:
            raise InvalidInput(
                f"prediction must have a row for each of the {patches} patches, not {prediction.shape[1]}; "
                "give hidden as patch numbers to predict fewer"
            )
    elif hidden.is_floating_point():
        raise InvalidInput(f"hidden must be bool or integer, not {hidden.dtype}")
    elif hidden.device.type == "cpu" and hidden.numel() and not torch.compiler.is_compiling():
        low, high = int(hidden.min()), int(hidden.max())
        if low < 0 or high >= patches:
            raise InvalidInput(f"hidden must name patches 0 to {patches - 1}, not {low if low < 0 else high}")
