"""Batches of encoded images to tensors: see csrc/cpu/decode_batch.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native import library
from imagen_fast.native.tensors import on_cpu

Filter = Literal["bilinear", "bicubic"]
# As csrc/common/resample.h and csrc/cpu/image_output.h number them.
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
        out: [R, C, H, W], or with a patch size [R, N, P * P * C]; C is 1 or 3.
        places: int64 [B]: which of the R each image is written to, no two to the same.
        scale, shift: of each of 3 channels: byte * scale + shift, unless `out` is uint8.
        least_pixels: how many decoded pixels a pixel of the view must have along either side for a JPEG to be
            decoded at a smaller scale; 0: never.
        size: (H, W).
    """
    on_cpu("out", out)
    height, width = size
    if out.dtype not in PIXEL_TYPES:
        raise InvalidInput(f"out must be one of {[str(x) for x in PIXEL_TYPES]}, not {out.dtype}")
    if not out.is_contiguous():
        raise InvalidInput("out must be contiguous")
    if len(places) and not 0 <= places.min() <= places.max() < len(out):
        raise InvalidInput(f"places must be 0 to {len(out) - 1}")
    channels = out[0].numel() // (height * width) if len(out) else 3
    return library.cpu().decode_batch(
        images=list(images),
        views=views,
        filter=FILTERS[filter],
        least_pixels=least_pixels,
        out=out.data_ptr(),
        places=places,
        type=PIXEL_TYPES[out.dtype],
        shape=[channels, height, width],
        patch=patch or 0,
        scale=list(scale),
        shift=list(shift),
        threads=threads,
    )
