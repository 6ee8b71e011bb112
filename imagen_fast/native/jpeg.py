"""JPEG decoding through libjpeg-turbo: see csrc/cpu/jpeg.h."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imagen_fast.errors import DataError, InvalidInput
from imagen_fast.native.library import cpu, load

Bytes = bytes | bytearray | memoryview


class JpegError(DataError):
    """This decoder does not take the file; a more lenient one (Pillow) may."""


class Region(NamedTuple):
    """The pixels [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int


def jpeg_available() -> bool:
    return hasattr(load("_cpu")[0], "decode_jpeg")


def jpeg_size(data: Bytes) -> tuple[int, int]:
    """Width and height, from the header alone."""
    native = cpu()
    try:
        return native.jpeg_size(data)
    except native.JpegError as error:
        raise JpegError(str(error)) from None


def decode_jpeg(data: Bytes, region: tuple[int, int, int, int] | None = None) -> Tensor:
    """uint8 [h, w, 3], RGB: the image, or its region (left, top, right, bottom), equal to Pillow's pixels.

    A file that libjpeg finds anything wrong with raises `JpegError`, and so does one with four colour
    components: what becomes of it is for a more lenient decoder to say. Other threads run meanwhile.
    """
    native = cpu()
    width, height = jpeg_size(data)
    left, top, right, bottom = Region(0, 0, width, height) if region is None else region
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InvalidInput(f"a region must be a non-empty part of {width}x{height} pixels, not {region}")
    out = torch.empty(bottom - top, right - left, 3, dtype=torch.uint8)
    try:
        native.decode_jpeg(data, left, top, right, bottom, out.data_ptr())
    except native.JpegError as error:
        raise JpegError(str(error)) from None
    return out
