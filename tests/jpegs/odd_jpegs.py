"""JPEGs of every odd kind, small, for the tests and the fuzzer: `python tests/jpegs/odd_jpegs.py FOLDER`."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import odd_applications
import odd_coding
import odd_layout
from odd_files import File, Files, left, picture, saved


@cache
def corpus() -> dict[str, File]:
    """By name."""
    found: dict[str, File] = {}
    for files in (
        pillows(),
        *odd_coding.subjects(),
        *odd_layout.subjects(),
        *odd_applications.subjects(),
        no_jpegs(),
    ):
        for name, file in files:
            assert name not in found
            found[name] = file
    return found


def pillows() -> Files:
    for size in ((1, 1), (3, 2), (8, 8), (17, 33), (48, 40), (120, 90)):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                name = f"{size[0]}x{size[1]}-s{subsampling}-{'progressive' if progressive else 'baseline'}"
                yield name, File(saved(picture(*size), subsampling=subsampling, progressive=progressive))
    for quality in (1, 50, 100):
        yield f"q{quality}", File(saved(picture(40, 30), quality=quality))
    yield "gray", File(saved(picture(50, 31).convert("L")))
    yield "cmyk", left(saved(picture(50, 31).convert("CMYK")))
    yield "restarts", File(saved(picture(70, 50), restart_marker_blocks=2))
    yield "restart-rows", File(saved(picture(70, 50), restart_marker_rows=1))
    yield "optimised", File(saved(picture(70, 50), optimize=True))
    yield "wide", File(saved(picture(700, 5)))
    yield "tall", File(saved(picture(5, 700)))
    yield "rgb", File(saved(picture(33, 21), keep_rgb=True))
    pages = [picture(40, 30), picture(20, 30)]
    yield "several-pictures", File(saved(pages[0], format="MPO", save_all=True, append_images=pages[1:]))


def no_jpegs() -> Files:
    """Files of other kinds under a JPEG's name."""
    image = picture(20, 14)
    for kind in ("PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        data = saved(image, format=kind)
        yield f"a-{kind.lower()}", left(data)
        yield f"a-broken-{kind.lower()}", left(data[: len(data) // 2])
    yield "text", left(b"This is no image.\n" * 20)
    yield "zeros", left(bytes(1000))
    yield "html", left(b"<!DOCTYPE html><html><title>404</title></html>")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in corpus().items():
        (folder / f"{name}.jpg").write_bytes(file.data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
