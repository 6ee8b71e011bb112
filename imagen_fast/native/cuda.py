"""The compiled CUDA kernels: see csrc/cuda."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native.library import cuda, load

# As csrc/cuda/normalise_images.h numbers them.
_PLANES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def device_count() -> int:
    """0 without a driver, without a device, and without the module."""
    module, _ = load("_cuda")
    return 0 if module is None else module.device_count()


def compiled_architectures() -> tuple[str, ...]:
    """Such as ("80", "90", "100"); empty without the module."""
    module, _ = load("_cuda")
    return () if module is None else tuple(module.compiled_architectures.split())


def normalise_images(
    pixels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    flip: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """uint8 [B, H, W, C] to [B, C, H, W]: (pixels / 255 - mean) / std, mirrored where `flip` [B] is true."""
    if pixels.device.type != "cuda" or pixels.dtype != torch.uint8 or pixels.dim() != 4:
        raise InvalidInput(
            "pixels must be uint8 [B, H, W, C] on a GPU, not "
            f"{pixels.dtype} {tuple(pixels.shape)} on {pixels.device}"
        )
    if dtype not in _PLANES:
        raise InvalidInput(f"dtype must be float32, bfloat16 or float16, not {dtype}")
    batch, height, width, channels = pixels.shape
    if not 1 <= channels <= 4 or len(mean) != channels or len(std) != channels:
        raise InvalidInput(f"mean and std need a value for each of 1 to 4 channels, not of {channels}")
    if flip is not None and (flip.shape != (batch,) or flip.device != pixels.device):
        raise InvalidInput(
            f"flip must be [{batch}] on {pixels.device}, not {tuple(flip.shape)} on {flip.device}"
        )
    pixels = pixels.contiguous()
    mirrored = None if flip is None else flip.to(torch.bool).contiguous()
    planes = torch.empty(batch, channels, height, width, dtype=dtype, device=pixels.device)
    with torch.cuda.device(pixels.device):
        cuda().normalise_images(
            pixels=pixels.data_ptr(),
            batch=batch,
            height=height,
            width=width,
            channels=channels,
            mean=list(mean),
            deviation=list(std),
            flip=0 if mirrored is None else mirrored.data_ptr(),
            planes=planes.data_ptr(),
            dtype=_PLANES[dtype],
            stream=torch.cuda.current_stream().cuda_stream,
        )
    return planes
