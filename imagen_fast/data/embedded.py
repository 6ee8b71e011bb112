"""Real data without a download: what scikit-learn and scikit-image ship inside their wheels."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from imagen_fast.data.errors import TooFewImages
from imagen_fast.data.sources import ArraySource
from imagen_fast.errors import InvalidInput, MissingPackage

# Photograph, the package that ships it, the file, and by how much it is reduced first. The retina would
# else give more tiles than all others together. Of the stereo pair of a motorcycle only the left one: the
# right one would put a twin of nearly every tile into both halves of a split.
PHOTOGRAPHS: Final = (
    ("astronaut", "skimage", "data/astronaut.png", 1),
    ("cat", "skimage", "data/chelsea.png", 1),
    ("coffee", "skimage", "data/coffee.png", 1),
    ("flower", "sklearn", "datasets/images/flower.jpg", 1),
    ("galaxies", "skimage", "data/hubble_deep_field.jpg", 1),
    ("motorcycle", "skimage", "data/motorcycle_left.png", 1),
    ("retina", "skimage", "data/retina.jpg", 2),
    ("rocket", "skimage", "data/rocket.jpg", 1),
    ("temple", "sklearn", "datasets/images/china.jpg", 1),
    ("tissue", "skimage", "data/ihc.png", 1),
)
# A tile whose brightest and darkest values are closer than this is the black frame of the retina.
LEAST_CONTRAST: Final = 16


def digits() -> ArraySource:
    """The 1,797 handwritten digits of scikit-learn: uint8 [1797, 1, 8, 8], 17 levels, ten classes.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998. Raises
    `MissingPackage` without scikit-learn.
    """
    _package("sklearn", "digits")
    # Here and not above: it takes a second to import, and nothing else needs it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # from 0..16
    return ArraySource(
        name="digits",
        channels=1,
        levels=17,
        labels=bunch.target.astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        mean=(float(images.mean() / 255),),
        std=(float(images.std() / 255),),
        native_size=8,
        images=images,
    )


def photos(size: int = 64) -> ArraySource:
    """Square tiles, `size` pixels a side and none overlapping, of the colour photographs in the wheels.

    uint8 [N, 3, size, size] (771 at 64 pixels); the label says which photograph. A file that a version of
    the packages no longer ships is passed over. Raises `MissingPackage` without scikit-learn and
    scikit-image, `TooFewImages` where no tile of this size fits.
    """
    if size < 1:
        raise InvalidInput(f"the side of a tile must be at least 1 pixel, not {size}")
    tiles: list[np.ndarray] = []
    classes: list[str] = []
    for name, image in photographs():
        cut = _tiles(np.asarray(image), size)
        if len(cut):
            tiles.append(cut)
            classes.append(name)
    if not tiles:
        raise TooFewImages(
            f"no tile of {size} pixels fits into the embedded photographs; take a smaller size"
        )
    return ArraySource(
        name="photos",
        labels=np.repeat(np.arange(len(tiles), dtype=np.int64), [len(cut) for cut in tiles]),
        classes=tuple(classes),
        native_size=size,
        images=np.concatenate(tiles),
    )


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """The colour photographs in the wheels, with their names. Raises `MissingPackage` without those."""
    folders = {package: _package(package, "photos") for package in ("skimage", "sklearn")}
    for name, package, file, factor in PHOTOGRAPHS:
        path = folders[package] / file
        if path.is_file():
            with Image.open(path) as image:
                yield name, image.convert("RGB").reduce(factor)


def _tiles(pixels: np.ndarray, size: int) -> np.ndarray:
    """[H, W, 3] -> [N, 3, size, size], in reading order, centred, without the flat ones."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    top, left = (pixels.shape[0] - rows * size) // 2, (pixels.shape[1] - columns * size) // 2
    grid = pixels[top : top + rows * size, left : left + columns * size]
    grid = grid.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, size, size)
    if not len(grid):
        return grid
    contrast = grid.max(axis=(1, 2, 3)).astype(np.int64) - grid.min(axis=(1, 2, 3))
    return grid[contrast >= LEAST_CONTRAST]


def _package(name: str, data: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingPackage(
            f"the embedded set {data!r} needs the package {name}, which is not installed: "
            "pip install imagen-fast[train]"
        )
    return Path(spec.origin).parent
