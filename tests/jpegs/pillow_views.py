"""What Pillow makes of a file, and how near to it ours must be."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from imagen_fast.data import decode_image

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def by_pillow(data: bytes, box, size, filter="bilinear", mirrored=False, mode="RGB") -> torch.Tensor:
    """uint8 [C, H, W]. Rows, then columns: since version 13 Pillow chooses the order by the sizes."""
    image = Image.fromarray(decode_image(data)).convert(mode).crop(tuple(box))
    for part in ((size[1], image.height), size[::-1]):
        image = image.resize(part, FILTERS[filter])
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image).reshape(*size, -1)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def nearly_the_same(made: torch.Tensor, wanted: torch.Tensor) -> None:
    """Or two: a bicubic weight above 1 makes two of a row's one."""
    difference = (made.int() - wanted.int()).abs()
    assert int(difference.max()) <= 2
    # Of a few values many may lie next to the middle between two levels, and what is enlarged repeats them.
    rows, columns = (changes(wanted.movedim(side, 0)) for side in (1, 2))
    difference = difference[:, rows][..., columns]
    if difference.numel() > 3000:
        assert float(difference.float().mean()) <= 0.05


def changes(parts: torch.Tensor) -> torch.Tensor:
    """bool [N]: which of the parts [N, ...] are not as the one before."""
    return torch.cat([torch.tensor([True]), parts.diff(dim=0).flatten(1).any(1)])
