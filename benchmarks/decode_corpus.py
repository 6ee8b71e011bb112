"""JPEGs to decode, made from the photographs that scikit-image and scikit-learn ship; nothing is downloaded.

`python -m imagen_fast.benchmarks.decode_corpus FOLDER` writes them as files.
"""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from imagen_fast.data.embedded import photographs

# Common sizes of a data set's photographs and of a telephone's.
SMALL, LARGE = (500, 375), (2048, 1536)
# Files of each size that are written for people to look at.
COUNT = 64
# The retina is a disc on black, and half of it codes to nothing.
LEFT_OUT = ("retina",)


@cache
def jpegs(count: int, size: tuple[int, int], seed: int = 0) -> tuple[bytes, ...]:
    """`count` JPEGs of `size` (width, height), quality 90 to 95, colour at half the resolution (4:2:0).

    Each is a random part of a photograph, its shape that of the size; enlarged where the photograph is
    smaller, with the grain that an enlargement lacks.
    """
    rng = np.random.default_rng((seed, *size))
    found = [image for name, image in photographs() if name not in LEFT_OUT]
    return tuple(_jpeg(found[i % len(found)], size, rng) for i in range(count))


def _jpeg(photograph: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    most = min(1.0, *(have / want for have, want in zip(photograph.size, size, strict=True)))
    share = most * rng.uniform(0.9, 1.0)
    width, height = (round(side * share) for side in size)
    left, top = (
        int(rng.integers(have - part + 1))
        for have, part in zip(photograph.size, (width, height), strict=True)
    )
    part = photograph.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(part).astype(np.float32)
    if share < 1:
        pixels = pixels + rng.normal(0, 2, pixels.shape[:2])[..., None]
    file = io.BytesIO()
    quality = int(rng.integers(90, 96))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size in (SMALL, LARGE):
        for i, data in enumerate(jpegs(COUNT, size)):
            (folder / f"{size[0]}x{size[1]}-{i:02}.jpg").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
