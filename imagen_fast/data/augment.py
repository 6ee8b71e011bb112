"""Random views of an image, and the one fixed view for evaluation."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imagen_fast.data.decode import Box, Picture
from imagen_fast.data.sources import ArraySource, Source
from imagen_fast.data.views import Views, random_boxes
from imagen_fast.errors import InvalidInput

# The integer weights by which Pillow turns RGB into gray (ITU-R BT.601), in units of 1/65536.
LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A rectangle of random area and shape, resized to a square; torchvision's distribution exactly.

    `scale` bounds the share of the image's area, `ratio` the width over the height (drawn log-uniformly).
    Ten tries, then the largest central rectangle within `ratio`. Source: Szegedy et al., Going Deeper with
    Convolutions, 2014.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, rng: np.random.Generator, width: int, height: int) -> Box:
        """Draw a rectangle of an image of this size, in pixels."""
        narrowest, widest = self.ratio
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                return left, top, left + w, top + h
        w, h = width, height
        if width / height < narrowest:
            h = max(1, round(width / narrowest))
        elif width / height > widest:
            w = max(1, round(height * widest))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def views(self, sizes: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Views:
        """One of each image, drawn for all at once: see `decode_batch`."""
        return Views.of_boxes(random_boxes(rng, sizes, self.scale, self.ratio), size)

    def view(self, picture: Picture, size: int, rng: np.random.Generator) -> Image.Image:
        """A random view, `size` pixels a side, resized bicubically with antialiasing."""
        return resize(picture.crop(self.box(rng, *picture.size)), (size, size))


@dataclass(frozen=True)
class CenterCrop:
    """The view for evaluation: the shorter side resized to size / `share`, then the central square."""

    share: float = 0.875

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise InvalidInput(
                f"the share of a central crop must lie above 0 and at most at 1, not {self.share}"
            )

    def views(self, sizes: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Views:
        """That of each image: see `decode_batch`; nothing is drawn. A window that is no square is central in
        an image whose shorter side is that of the longer side of the window."""
        resized, corners = self._resized(sizes, size)
        count = len(sizes)
        boxes = np.concatenate([np.zeros((count, 2), np.int64), sizes], 1)
        return Views(boxes, resized, corners, np.zeros(count, bool))

    def view(self, picture: Picture, size: int) -> Image.Image:
        """The central view, `size` pixels a side."""
        resized, corners = self._resized(np.array([picture.size]), (size, size))
        left, top = corners[0].tolist()
        whole = resize(picture.crop(), tuple(resized[0].tolist()))
        return whole.crop((left, top, left + size, top + size))

    def _resized(self, sizes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The width and height that whole images are resized to, and the corner of the central window."""
        window = np.array([size[1], size[0]])
        shorter = math.floor(window.max() / self.share)
        least = sizes.min(1, keepdims=True)
        resized = np.where(sizes == least, shorter, shorter * sizes // least)
        return resized, np.rint((resized - window) / 2).astype(np.int64)


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to every image: a crop (None: the fixed view), a flip, a shift.

    `flip` mirrors half of the images left to right; `shift` moves each by up to that many pixels either
    way along both axes, with zeros moving in.
    """

    crop: RandomResizedCrop | None = None
    flip: bool = False
    shift: int = 0


def augmentation_for(source: Source) -> Augmentation:
    """The training views that suit a source: MAE's for photographs (He et al. 2021), shifts for digits."""
    if source.channels == 1:
        return Augmentation(shift=1)
    return Augmentation(crop=RandomResizedCrop(), flip=True)


def fixed_view(source: Source) -> CenterCrop:
    """The evaluation's view: photographs lose their margins, as is usual; images of one size lose nothing."""
    return CenterCrop(share=1.0 if isinstance(source, ArraySource) else 0.875)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bicubic with antialiasing; `size` is (width, height)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def random_shifts(images: np.ndarray, reach: int, rng: np.random.Generator) -> np.ndarray:
    """Move each image by up to `reach` pixels along both axes, zeros moving in. [B, C, H, W] -> the same."""
    b, _, h, w = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    offset = rng.integers(0, 2 * reach + 1, size=(2, b, 1))
    rows, columns = offset[0] + np.arange(h), offset[1] + np.arange(w)  # [B, H], [B, W]
    moved = padded[np.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [B, 1 or 3, H, W] -> [B, channels, H, W]; gray as Pillow computes it."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    gray = (np.einsum("bchw,c->bhw", images, LUMA, dtype=np.uint32) + 0x8000) >> 16
    return gray.astype(np.uint8)[:, None]
