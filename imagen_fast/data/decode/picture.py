"""Encoded bytes to pixels. Accepts and refuses what Pillow does; crops of plain JPEGs decode natively."""

import io
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from imagen_fast.data.errors import CorruptImage
from imagen_fast.native import JpegError, decode_jpeg, jpeg_available

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are excluded, as in Pillow."""

# Never all that Pillow knows: some of its readers start other programs (EPS), and none of the rest is
# found under a photograph's name. "JPEG" includes the files of several pictures that telephones write (MPO).
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# What brings an image of each EXIF orientation upright. Not `ImageOps.exif_transpose`: it also rewrites the
# EXIF data, and fails where those are broken in some other place.
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(Protocol):
    """An image whose size is known and of which any rectangle can be had."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as seen upright."""

    def crop(self, box: Box | None = None) -> Image.Image:
        """The pixels inside `box` (all of them for None), in mode "RGB" or "L".

        Raises `CorruptImage` where the bytes turn out to be unusable.
        """


@dataclass(frozen=True)
class DecodedPicture:
    """Pixels in memory, already in the wanted mode and upright."""

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def crop(self, box: Box | None = None) -> Image.Image:
        return self.image if box is None else self.image.crop(box)


@dataclass(frozen=True)
class JpegPicture:
    """A plain, upright JPEG not yet decoded: only what a crop needs is ever computed."""

    data: bytes
    size: tuple[int, int]
    channels: int

    def crop(self, box: Box | None = None) -> Image.Image:
        try:
            pixels = decode_jpeg(self.data, box)
        except JpegError:
            # Pillow has the last word on what is an image, and the better reason where it is none.
            return _decode(_open(self.data), self.channels).crop(box)
        image = Image.fromarray(pixels.numpy())
        return image if self.channels == 3 else image.convert("L")


def open_image(data: bytes, channels: int = 3) -> Picture:
    """Read the header and choose a decoder.

    `data` holds a whole JPEG, PNG, WebP, GIF or BMP file, whatever its name; `channels` is 3 (RGB) or 1
    (gray). An EXIF orientation is applied. Raises `CorruptImage` with the reason.
    """
    image = _open(data)
    if (
        image.format == "JPEG"
        and image.mode in ("RGB", "L")
        and _orientation(image) == 1
        and jpeg_available()
    ):
        return JpegPicture(data, image.size, channels)
    return _decode(image, channels)


def decode_image(data: bytes, channels: int = 3) -> np.ndarray:
    """The whole image upright, uint8 [H, W, channels]. Raises `CorruptImage` with the reason."""
    pixels = np.asarray(open_image(data, channels).crop())
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def pillow_size(data: bytes) -> tuple[int, int]:
    """Width and height upright, from the header alone. Raises `CorruptImage` with the reason."""
    image = _open(data)
    width, height = image.size
    return (width, height) if _orientation(image) < 5 else (height, width)


def pillow_pixels(data: bytes) -> np.ndarray:
    """As `decode_image` in RGB, by Pillow alone, which has the last word on what is an image."""
    return np.asarray(_decode(_open(data), 3).image)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise CorruptImage("the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:  # its own words name a BytesIO, which tells a user nothing
        raise CorruptImage("the bytes are no JPEG, PNG, WebP, GIF or BMP image") from None
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes bring out any exception at all in a format's parser
        raise CorruptImage(reason(error)) from error


def _decode(image: Image.Image, channels: int) -> DecodedPicture:
    try:
        image.load()
        upright = UPRIGHT.get(_orientation(image))
        if upright is not None:
            image = image.transpose(upright)
        return DecodedPicture(_convert(image, "RGB" if channels == 3 else "L"))
    except MemoryError:
        raise
    except Exception as error:  # as above: a decoder at work on hostile bytes
        raise CorruptImage(reason(error)) from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):
        # 16-bit gray: the upper byte is the picture. Pillow clips instead (older versions) or refuses.
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours as directly, without Pillow's warning
    return image.convert(mode)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; 1, upright, where it is absent, out of range or unreadable."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF is common and says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def reason(error: Exception) -> str:
    """What to tell of it; some exceptions say nothing themselves."""
    return str(error) or type(error).__name__
