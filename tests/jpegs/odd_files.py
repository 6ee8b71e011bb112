"""What every odd file is made with: one of Pillow's, a piece put in or cut out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jpeg_writer import EOI, SOI, SOS, Frame, quantisation, start_of_frame
from PIL import Image

FULL, HALF = ((1, 1),) * 3, ((2, 2), (1, 1), (1, 1))


@dataclass(frozen=True)
class File:
    """`natively`: the native decoder vouches for it. All other files are Pillow's to accept or to refuse."""

    data: bytes
    natively: bool = True


Files = Iterator[tuple[str, File]]


def left(data: bytes) -> File:
    """To Pillow."""
    return File(data, natively=False)


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng((width, height))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 110 * np.sin(x / a + y / b) for a, b in ((9, 13), (17, 7), (5, 29))], -1)
    return Image.fromarray((waves + rng.normal(0, 15, waves.shape)).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **({"format": "JPEG", "quality": 85} | options))
    return file.getvalue()


def without(data: bytes, marker: int) -> bytes:
    """All segments of this kind cut out."""
    kept, at = data[:2], 2
    while data[at + 1] != SOS:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += data[at:end] if data[at + 1] != marker else b""
        at = end
    return kept + data[at:]


def inserted(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at:]


STEPS = quantisation({0: 4, 1: 4})


def whole(frame: Frame, *scans: bytes) -> bytes:
    """A baseline file of what comes after the header of its frame."""
    return b"".join([SOI, STEPS, start_of_frame(frame), *scans, EOI])
