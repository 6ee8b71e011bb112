"""A batch of encoded images to the tensor that a model takes, in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from imagen_fast import native
from imagen_fast.data.decode.picture import decode_image
from imagen_fast.data.errors import CorruptImage
from imagen_fast.data.views import Views
from imagen_fast.errors import InvalidInput
from imagen_fast.native import Filter

Bytes = bytes | bytearray | memoryview

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)


class Sampler(Protocol):
    """Chooses what is seen of each image: `RandomResizedCrop`, `CenterCrop`."""

    def views(self, sizes: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Views:
        """Of images of int64 [B, 2] widths and heights, windows of `size` (height, width)."""


@dataclass(frozen=True)
class DecodedBatch:
    """What became of a batch.

    Attributes:
        pixels: [B, C, H, W], or patch tokens [B, N, P * P * C]; zeros for an image that failed.
        views: what was seen of each image; given as `crops` they make the same tensor again.
        failed: the reasons, by the number of the image; all others are good.
    """

    pixels: Tensor
    views: Views
    failed: dict[int, str]


def decode_batch(
    images: Sequence[Bytes | np.ndarray],
    crops: Sampler | Views | np.ndarray | Tensor,
    size: int | tuple[int, int],
    patch: int | None = None,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    flip: float | np.ndarray | Tensor = 0.0,
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    filter: Filter = "bilinear",
    dct_scaling: float | None = None,
    seed: int | np.random.Generator = 0,
    threads: int | None = None,
    out: Tensor | None = None,
) -> DecodedBatch:
    """Decode, crop, resize with antialiasing, mirror, normalise and, if wanted, cut into patches.

    An EXIF orientation is applied first. JPEGs of one or three colours are decoded natively, and only where
    they are seen; all else that `decode_image` knows goes through Pillow. Pixels are those of Pillow's crop
    and resize within one of 255 levels. Neither the number of threads nor the other images of the batch
    change any of them.

    Args:
        images: whole files, JPEG, PNG, WebP, GIF or BMP; or upright pixels, uint8 [H, W, 3].
        crops: a sampler, as `RandomResizedCrop()` or `CenterCrop()`; or int [B, 4]: left, top, right and
            bottom of a box in each upright image; or the `views` of an earlier call.
        size: the side, or (height, width), of what comes out.
        patch: side of a patch in pixels; None: no patches.
        mean, std: of each channel, on the scale 0..1; those of three colours are averaged for gray.
        flip: the probability with which an image is mirrored left to right, or bool [B]. Views say so
            themselves.
        dtype: float32, bfloat16 or float16; or uint8: the bytes, which are not normalised.
        channels: 3, RGB, or 1, gray as Pillow computes it.
        filter: `bilinear` or `bicubic`, both with antialiasing.
        dct_scaling: decode a JPEG at 1/8, 1/4 or 1/2 of its scale where at least so many pixels (1.0 or more)
            are left for each that comes out. Faster for photographs of many megapixels; pixels then differ
            from Pillow's.
        seed: of what the sampler and `flip` draw.
        threads: None: as many as this process has processors.
        out: a contiguous CPU tensor that is written instead of a new one.

    Raises:
        InvalidInput: arguments that do not fit together. An image that cannot be decoded raises nothing: see
            `DecodedBatch.failed`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    count, threads = len(images), threads or _processors()
    pixels = _output(out, count, channels, height, width, patch, dtype)
    scale, shift = _affine(mean, std, channels)
    if dct_scaling is not None and not dct_scaling >= 1.0:
        raise InvalidInput(f"dct scaling must be at least 1.0 pixels, or None, not {dct_scaling}")
    rng = np.random.default_rng(seed)

    found = [_dense(image, i) if isinstance(image, np.ndarray) else image for i, image in enumerate(images)]
    sizes, reasons = native.picture_sizes(found, threads)
    failed: dict[int, str] = {}
    _by_pillow(found, [i for i, reason in enumerate(reasons) if reason], sizes, failed, threads)
    views = _views(crops, flip, sizes, (height, width), rng)

    def decode(which: np.ndarray) -> list[str]:
        return native.decode_views(
            [found[i] for i in which],
            views[which].table(),
            pixels,
            which,
            filter=filter,
            patch=patch,
            scale=scale,
            shift=shift,
            least_pixels=dct_scaling or 0.0,
            size=(height, width),
            threads=threads,
        )

    good = np.array([i for i in range(count) if i not in failed], dtype=np.int64)
    _check_boxes(views, sizes, good)
    # A file whose header was fine may be broken further on: Pillow has the last word on that.
    broken = [int(i) for i, reason in zip(good, decode(good), strict=True) if reason]
    _by_pillow(found, broken, sizes, failed, threads)
    decode(np.array([i for i in broken if i not in failed], dtype=np.int64))
    for i in failed:
        pixels[i] = 0
    return DecodedBatch(pixels, views, failed)


def _dense(pixels: np.ndarray, number: int) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InvalidInput(
            f"image {number} must be bytes, or uint8 [H, W, 3] and not empty, not {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    return np.ascontiguousarray(pixels)


def _by_pillow(
    images: list[Bytes | np.ndarray],
    which: list[int],
    sizes: np.ndarray,
    failed: dict[int, str],
    threads: int,
) -> None:
    """Put pixels in the place of some of the bytes, and their sizes; note those that are no images."""

    def decode(i: int) -> None:
        try:
            images[i] = pixels = decode_image(images[i], 3)  # type: ignore[arg-type]
            sizes[i] = pixels.shape[1], pixels.shape[0]
        except CorruptImage as error:
            failed[i] = str(error)
            sizes[i] = 1, 1

    if len(which) > 1 and threads > 1:
        with ThreadPoolExecutor(min(threads, len(which))) as pool:
            list(pool.map(decode, which))
    else:
        for i in which:
            decode(i)


def _views(
    crops: Sampler | Views | np.ndarray | Tensor,
    flip: float | np.ndarray | Tensor,
    sizes: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Views:
    count = len(sizes)
    if isinstance(crops, Views):
        views = crops
    elif isinstance(crops, np.ndarray | Tensor):
        views = Views.of_boxes(np.asarray(crops), size)
    else:
        views = crops.views(sizes, size, rng)
    if len(views) != count:
        raise InvalidInput(f"{count} images need as many crops, not {len(views)}")
    if isinstance(flip, np.ndarray | Tensor):
        mirrored = np.asarray(flip)
        if mirrored.shape != (count,) or mirrored.dtype != np.bool_:
            raise InvalidInput(f"flip must be a probability or bool [{count}]")
    elif not 0.0 <= flip <= 1.0:
        raise InvalidInput(f"flip must be a probability, not {flip}")
    else:
        mirrored = rng.random(count) < flip
    return Views(views.boxes, views.resized, views.corners, views.mirrored ^ mirrored)


def _check_boxes(views: Views, sizes: np.ndarray, which: np.ndarray) -> None:
    boxes, wide = views.boxes[which], sizes[which]
    inside = (boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, 2:] <= wide)
    bad = which[~inside.all(1)]
    if len(bad):
        i = int(bad[0])
        raise InvalidInput(
            f"the crop of image {i}, {views.boxes[i].tolist()}, must be a non-empty part of its "
            f"{sizes[i][0]}x{sizes[i][1]} pixels"
        )


def _output(
    out: Tensor | None,
    count: int,
    channels: int,
    height: int,
    width: int,
    patch: int | None,
    dtype: torch.dtype,
) -> Tensor:
    if channels not in (1, 3):
        raise InvalidInput(f"channels must be 1 or 3, not {channels}")
    if height < 1 or width < 1:
        raise InvalidInput(f"size must be at least 1, not {height}x{width}")
    shape: tuple[int, ...] = (count, channels, height, width)
    if patch is not None:
        if patch < 1 or height % patch or width % patch:
            raise InvalidInput(f"patches of {patch} must divide {height}x{width} pixels")
        shape = (count, height // patch * (width // patch), patch * patch * channels)
    if out is None:
        return torch.empty(shape, dtype=dtype)
    if tuple(out.shape) != shape or out.dtype != dtype:
        raise InvalidInput(f"out must be {dtype} {list(shape)}, not {out.dtype} {list(out.shape)}")
    return out


def _affine(mean: Sequence[float], std: Sequence[float], channels: int) -> tuple[list[float], list[float]]:
    """What makes (byte / 255 - mean) / std of a byte; padded to 3 channels."""
    if len(mean) != len(std) or len(mean) not in (channels, 3) or not all(deviation > 0 for deviation in std):
        raise InvalidInput(f"mean and std must have {channels} values each, all of std above 0")
    if channels == 1:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    pairs = [*zip(mean, std, strict=True), *[(0.0, 1.0)] * 3][:3]
    return [1 / (255 * s) for _, s in pairs], [-m / s for m, s in pairs]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
