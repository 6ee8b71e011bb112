"""JPEGs of every odd kind that Pillow can write, small: `python tests/fuzz/corpus.py FOLDER`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng((width, height))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 110 * np.sin(x / a + y / b) for a, b in ((9, 13), (17, 7), (5, 29))], -1)
    return Image.fromarray((waves + rng.normal(0, 15, waves.shape)).clip(0, 255).astype(np.uint8))


def corpus() -> dict[str, bytes]:
    """By name."""
    found: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, **options) -> None:
        file = io.BytesIO()
        image.save(file, "JPEG", **({"quality": 85} | options))
        found[name] = file.getvalue()

    for size in ((1, 1), (3, 2), (8, 8), (17, 33), (48, 40), (120, 90)):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                name = f"{size[0]}x{size[1]}-s{subsampling}-{'progressive' if progressive else 'baseline'}"
                add(name, picture(*size), subsampling=subsampling, progressive=progressive)
    for quality in (1, 50, 100):
        add(f"q{quality}", picture(40, 30), quality=quality)
    for mode in ("L", "CMYK"):
        add(mode, picture(50, 31).convert(mode))
    add("restarts", picture(70, 50), restart_marker_blocks=2)
    add("restart-rows", picture(70, 50), restart_marker_rows=1)
    add("optimised", picture(70, 50), optimize=True)
    add("wide", picture(700, 5))
    add("tall", picture(5, 700))
    add("comment", picture(20, 20), comment=b"x" * 500)
    add("rgb", picture(33, 21), keep_rgb=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "maker"
        add(f"orientation{orientation}", picture(37, 22), exif=exif)
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in corpus().items():
        (folder / f"{name}.jpg").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
