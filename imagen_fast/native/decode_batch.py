"""Batches of encoded images to tensors: see csrc/cpu/decode_batch.h and csrc/cuda/view_decoder.h."""

from __future__ import annotations

import atexit
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.native import library
from imagen_fast.native.nvjpeg import find_nvjpeg

Filter = Literal["bilinear", "bicubic"]
# As csrc/common/resample.h and csrc/common/image_output.h number them.
FILTERS: Final = {"bilinear": 0, "bicubic": 1}
PIXEL_TYPES: Final = {torch.uint8: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}

Image = bytes | bytearray | memoryview | np.ndarray
"""A JPEG, or upright pixels, uint8 [height, width, 3]."""


def picture_sizes(images: Sequence[Image], most_pixels: int, threads: int) -> tuple[np.ndarray, list[str]]:
    """int64 [B, 2]: the upright width and height of each, zeros where its header fails; why, or ''."""
    sizes, failures = library.cpu().picture_sizes(list(images), most_pixels, threads)
    return np.array(sizes, dtype=np.int64).reshape(-1, 2), failures


def decode_views(
    images: Sequence[Image],
    views: np.ndarray,
    out: Tensor,
    places: np.ndarray,
    *,
    filter: Filter,
    patch: int | None,
    scale: Sequence[float],
    shift: Sequence[float],
    least_pixels: float,
    size: tuple[int, int],
    threads: int,
) -> list[str]:
    """Write the view of each image into its place of `out`; why each failed, '' where it did not.

    Args:
        views: int64 [B, 9]: left, top, right, bottom of the part that is resampled; the width and height that
            it is resampled to; left and top of the view in that; whether it is mirrored.
        out: [R, C, H, W], or with a patch size [R, N, P * P * C]; C is 1 or 3. On a GPU it is written on the
            current stream, which need not have come to it when this returns.
        places: int64 [B]: which of the R each image is written to, no two to the same.
        scale, shift: of each of 3 channels: byte * scale + shift, unless `out` is uint8.
        least_pixels: how many decoded pixels a pixel of the view must have along either side for a JPEG to be
            decoded at a smaller scale; 0: never, as on a GPU.
        size: (H, W).
    """
    height, width = size
    if out.device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"out must be on the CPU or a GPU, not on {out.device}")
    if out.is_cuda and least_pixels:
        raise InvalidInput("smaller scales are decoded on the CPU only")
    if out.dtype not in PIXEL_TYPES:
        raise InvalidInput(f"out must be one of {[str(x) for x in PIXEL_TYPES]}, not {out.dtype}")
    if not out.is_contiguous():
        raise InvalidInput("out must be contiguous")
    if len(places) and not 0 <= places.min() <= places.max() < len(out):
        raise InvalidInput(f"places must be 0 to {len(out) - 1}")
    channels = out[0].numel() // (height * width) if len(out) else 3
    call: dict[str, Any] = {
        "images": list(images),
        "views": views,
        "places": places,
        "filter": FILTERS[filter],
        "out": out.data_ptr(),
        "type": PIXEL_TYPES[out.dtype],
        "shape": [channels, height, width],
        "patch": patch or 0,
        "scale": list(scale),
        "shift": list(shift),
        "threads": threads,
    }
    if not out.is_cuda:
        return library.cpu().decode_batch(**call, least_pixels=least_pixels)
    with torch.cuda.device(out.device), _gpu_decoder(out.device.index) as decoder:
        return decoder.decode(**call, stream=torch.cuda.current_stream().cuda_stream)


def no_gpu_decoder_because() -> str | None:
    """Why images cannot be decoded on a GPU here; None where they can, given one."""
    if why := library.load("_cuda")[1]:
        return why
    if find_nvjpeg() is None:
        return "nvJPEG was not found; `pip install nvidia-nvjpeg` brings it"
    return None


def gpu_decoder_has_engine(device: int) -> bool:
    """Whether the chip's JPEG engine is used."""
    with torch.cuda.device(device), _gpu_decoder(device) as decoder:
        return decoder.has_engine


# Of each GPU those that nobody uses now: a decoder takes long to make, and each thread needs its own.
_idle: defaultdict[int, list[Any]] = defaultdict(list)
# Before CUDA itself goes, without which they cannot.
atexit.register(_idle.clear)


@contextmanager
def _gpu_decoder(device: int) -> Iterator[Any]:
    """One for the current device, which is this one; not used again after an exception."""
    try:
        decoder = _idle[device].pop()
    except IndexError:
        if why := no_gpu_decoder_because():
            raise BackendUnavailable(f"images cannot be decoded on a GPU: {why}") from None
        try:
            decoder = library.cuda().ViewDecoder(nvjpeg=find_nvjpeg())
        except RuntimeError as error:
            raise BackendUnavailable(f"images cannot be decoded on a GPU: {error}") from None
    yield decoder
    _idle[device].append(decoder)
