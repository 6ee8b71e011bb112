"""A batch of encoded images to the tensor that a model takes, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagen_fast import native
from imagen_fast.data.decode.picture import decode_image, pillow_pixels, pillow_size, reason
from imagen_fast.data.device import checked_device
from imagen_fast.data.sources import IMAGENET_MEAN, IMAGENET_STD
from imagen_fast.data.views import Views
from imagen_fast.errors import InvalidInput
from imagen_fast.native import PIXEL_TYPES, Filter

Bytes = bytes | bytearray | memoryview


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
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    flip: float | np.ndarray | Tensor = 0.0,
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    filter: Filter = "bilinear",
    dct_scaling: float | None = None,
    seed: int | np.random.Generator | None = None,
    threads: int | None = None,
    out: Tensor | None = None,
    device: torch.device | str | None = None,
) -> DecodedBatch:
    """Decode, crop, resize with antialiasing, mirror, normalise and, if wanted, cut into patches.

    An EXIF orientation is applied first. JPEGs of one or three colours are decoded natively, and only where
    they are seen; all else that `decode_image` knows goes through Pillow. Pixels are those of Pillow's crop
    and resize within two of 255 levels. Neither the number of threads nor the other images of the batch
    change any of them.

    On a GPU nvJPEG decodes, on the chip's JPEG engine where there is one; what it does not take comes from
    the CPU. Its pixels differ a little from libjpeg's; all that is done to them is equal to the CPU's, bit by
    bit. `pixels` is ready for the current stream. Threads may call at once: each has a decoder of its own.

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
            from Pillow's. On the CPU only.
        seed: of what the sampler and `flip` draw; None: something new each time.
        threads: None: as many as this process has processors.
        out: a contiguous tensor that is written instead of a new one.
        device: where: the CPU or a GPU; None: that of `out`, or the CPU.

    Raises:
        InvalidInput: arguments that do not fit together.
        BackendUnavailable: there is no such GPU, or nothing to decode with on it.

    An image that cannot be decoded raises nothing: see `DecodedBatch.failed`.
    """
    height, width = (int(size), int(size)) if isinstance(size, int | np.integer) else size
    count, threads = len(images), threads or processors()
    if filter not in get_args(Filter):
        raise InvalidInput(f"filter must be one of {list(get_args(Filter))}, not {filter!r}")
    if dct_scaling is not None and not dct_scaling >= 1.0:
        raise InvalidInput(f"dct scaling must be at least 1.0 pixels, or None, not {dct_scaling}")
    place = _device(device, out)
    if dct_scaling is not None and place.type == "cuda":
        raise InvalidInput("dct scaling must be None on a GPU: smaller scales are decoded on the CPU only")
    pixels = _output(out, place, count, channels, height, width, patch, dtype)
    scale, shift = _affine(mean, std, channels)
    given = [_checked(image, i) for i, image in enumerate(images)]

    sizes, reasons = native.picture_sizes(given, _most_pixels(), threads)
    failed: dict[int, str] = {}
    others = [i for i, why in enumerate(reasons) if why]
    for i in others:
        try:
            sizes[i] = pillow_size(given[i])  # type: ignore[arg-type]
        except Exception as error:  # no image may lose the others, for whatever reason
            failed[i] = reason(error)
            sizes[i] = 1, 1
    views = _views(crops, flip, sizes, (height, width), np.random.default_rng(seed))
    _check_views(views, sizes, [i for i in range(count) if i not in failed], (height, width))

    def decode(found: list[Bytes | np.ndarray], which: list[int], threads: int) -> list[str]:
        numbers = np.array(which, dtype=np.int64)
        return native.decode_views(
            found,
            views[numbers].table(),
            pixels,
            numbers,
            filter=filter,
            patch=patch,
            scale=scale,
            shift=shift,
            least_pixels=dct_scaling or 0.0,
            size=(height, width),
            threads=threads,
        )

    def settle(found: list[Bytes | np.ndarray], which: list[int], threads: int) -> None:
        failed.update((i, why) for i, why in zip(which, decode(found, which, threads), strict=True) if why)

    def by_pillow(i: int) -> None:
        """One at a time for each thread: whole images are large."""
        try:
            settle([pillow_pixels(given[i])], [i], 1)  # type: ignore[arg-type]
        except Exception as error:  # as above
            failed[i] = reason(error)

    def for_gpu(which: list[int]) -> None:
        """As many at a time as there are threads; the GPU is told by this one, whose stream it is."""
        found: dict[int, Bytes | np.ndarray] = {}

        def decode_one(i: int) -> None:
            try:
                found[i] = decode_image(given[i])  # type: ignore[arg-type]
            except Exception as error:  # as above
                failed[i] = reason(error)

        for start in range(0, len(which), threads):
            found.clear()
            _in_threads(decode_one, which[start : start + threads], threads)
            settle([*found.values()], [*found], threads)

    # On a GPU it is not libjpeg that says which files are plain.
    on_gpu = place.type == "cuda"
    plain = [i for i in range(count) if i not in failed and (on_gpu or not reasons[i])]
    broken = dict(zip(plain, decode([given[i] for i in plain], plain, threads), strict=True))
    broken = {i: why for i, why in broken.items() if why}
    failed |= {i: why for i, why in broken.items() if isinstance(given[i], np.ndarray)}
    # A file whose header was fine may be broken further on: Pillow has the last word on that.
    rest = [i for i in range(count) if i not in failed and (i in broken or (reasons[i] and not on_gpu))]
    if on_gpu:
        for_gpu(rest)
    else:
        _in_threads(by_pillow, rest, threads)
    for i in failed:
        pixels[i] = 0
    return DecodedBatch(pixels, views, failed)


def _checked(image: Bytes | np.ndarray, number: int) -> Bytes | np.ndarray:
    if isinstance(image, bytes | bytearray):
        return image
    if isinstance(image, memoryview) and image.contiguous:
        return image.cast("B")
    found = type(image).__name__
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return np.ascontiguousarray(image)
        found = f"{image.dtype} {list(image.shape)}"
    raise InvalidInput(f"image {number} must be bytes, or uint8 [H, W, 3] and not empty, not {found}")


def _most_pixels() -> int:
    """Where Pillow refuses an image as a decompression bomb."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else np.iinfo(np.int64).max


def _in_threads(work: Callable[[int], None], items: list[int], threads: int) -> None:
    if len(items) > 1 and threads > 1:
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            list(pool.map(work, items))
    else:
        for item in items:
            work(item)


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
        if not isinstance(flip, float | int) or flip:
            raise InvalidInput("views say themselves what is mirrored: with them flip must be 0.0")
    elif isinstance(crops, np.ndarray | Tensor):
        views = Views.of_boxes(np.asarray(crops), size)
    elif hasattr(crops, "views"):
        views = crops.views(sizes, size, rng)
    else:
        raise InvalidInput(f"crops must be a sampler, views or int [B, 4], not {type(crops).__name__}")
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


def _check_views(views: Views, sizes: np.ndarray, which: list[int], size: tuple[int, int]) -> None:
    window, boxes = np.array(size[::-1]), views.boxes
    inside = (boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, 2:] <= sizes)
    seen = (views.corners >= 0) & (views.corners + window <= views.resized)
    for i in which:
        if not inside[i].all():
            raise InvalidInput(
                f"the crop of image {i}, {boxes[i].tolist()}, must be a non-empty part of its "
                f"{sizes[i][0]}x{sizes[i][1]} pixels"
            )
        if not seen[i].all():
            raise InvalidInput(
                f"the view of image {i}, {size[1]}x{size[0]} pixels from {views.corners[i].tolist()} on, "
                f"must lie within the {views.resized[i][0]}x{views.resized[i][1]} that its box is resized to"
            )


def _device(device: torch.device | str | None, out: Tensor | None) -> torch.device:
    if device is None:
        device = "cpu" if out is None else out.device
    found = checked_device(device)
    if out is not None and out.device != found:
        raise InvalidInput(f"out must be on {found}, not on {out.device}")
    return found


def _output(
    out: Tensor | None,
    device: torch.device,
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
    if dtype not in PIXEL_TYPES:
        raise InvalidInput(f"dtype must be one of {[str(x) for x in PIXEL_TYPES]}, not {dtype}")
    if out is None:
        return torch.empty(shape, dtype=dtype, device=device)
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


def processors() -> int:
    """How many processors this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
