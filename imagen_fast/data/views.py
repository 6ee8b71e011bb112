"""Which part of an image a model sees, as numbers: drawn for a whole batch, kept, and used again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from imagen_fast.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Views:
    """Views of a batch of images: of each a box is resized, a window of that is seen, perhaps mirrored.

    Args:
        boxes: int64 [B, 4]: left, top, right, bottom in pixels of the upright image; right and bottom are
            excluded.
        resized: int64 [B, 2]: the width and height that the box is resized to, as if nothing were around it.
        corners: int64 [B, 2]: left and top of the window.
        mirrored: bool [B], left to right.
    """

    boxes: np.ndarray
    resized: np.ndarray
    corners: np.ndarray
    mirrored: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.boxes)
        wanted = {"boxes": (count, 4), "resized": (count, 2), "corners": (count, 2), "mirrored": (count,)}
        for name, shape in wanted.items():
            dtype = np.bool_ if name == "mirrored" else np.int64
            value = np.asarray(getattr(self, name))
            if value.shape != shape or not np.can_cast(value.dtype, dtype, "same_kind"):
                raise InvalidInput(
                    f"{name} must be {dtype.__name__} {list(shape)}, not {value.dtype} {list(value.shape)}"
                )
            object.__setattr__(self, name, value.astype(dtype))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: slice | np.ndarray | list[int]) -> Views:
        """Those of some of the images."""
        return Views(self.boxes[which], self.resized[which], self.corners[which], self.mirrored[which])

    @staticmethod
    def of_boxes(boxes: np.ndarray, size: tuple[int, int], mirrored: np.ndarray | None = None) -> Views:
        """Boxes [B, 4] that are resized to `size` (height, width) each."""
        boxes = np.asarray(boxes)
        count = len(boxes)
        return Views(
            boxes,
            np.tile((size[1], size[0]), (count, 1)),
            np.zeros((count, 2), np.int64),
            np.zeros(count, bool) if mirrored is None else mirrored,
        )

    def table(self) -> np.ndarray:
        """All of it as int64 [B, 9], in the order of the attributes."""
        return np.concatenate([self.boxes, self.resized, self.corners, self.mirrored[:, None]], 1)


def random_boxes(
    rng: np.random.Generator, sizes: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """A rectangle of random area and shape of each image: torchvision's distribution, drawn all at once.

    What is drawn for an image depends on the generator and on its place in the batch, not on other images.

    Args:
        sizes: int64 [B, 2], width and height.
        scale, ratio: see `RandomResizedCrop`.

    Returns:
        int64 [B, 4]: left, top, right, bottom.
    """
    tries = 10
    area, shape, x, y = np.moveaxis(rng.random((len(sizes), tries, 4)), -1, 0)
    width, height = (side[:, None].astype(np.float64) for side in np.asarray(sizes).T)
    area = width * height * (scale[0] + area * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = np.exp(low + shape * (high - low))
    w, h = np.rint(np.sqrt(area * shape)), np.rint(np.sqrt(area / shape))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, any_fits = fits.argmax(1)[:, None], fits.any(1)[:, None]
    w, h, x, y = (np.take_along_axis(tried, first, 1) for tried in (w, h, x, y))
    # Where none of the tries fits, the largest within the ratio, in the middle.
    widest, highest = (np.maximum(1, np.rint(side)) for side in (height * ratio[1], width / ratio[0]))
    w, h = (
        np.where(any_fits, w, np.minimum(width, widest)),
        np.where(any_fits, h, np.minimum(height, highest)),
    )
    left = np.where(any_fits, np.floor(x * (width - w + 1)), (width - w) // 2)
    top = np.where(any_fits, np.floor(y * (height - h + 1)), (height - h) // 2)
    return np.concatenate([left, top, left + w, top + h], 1).astype(np.int64)
