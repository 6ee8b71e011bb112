"""Sets of images: in a folder of files or in memory, each with its labels and statistics."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import numpy as np

from imagen_fast.data.errors import MissingFolder, NoImages, NoLabels, TooFewImages

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
# More numbers than that name something else: the bytes of a file, or its date.
MOST_CLASSES: Final = 1_000_000
EXTENSIONS: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A numbered set of images.

    `labels` are int64 [len] indices into `classes`, or None; `mean` and `std` are per channel on the scale
    0..1; `levels` is the number of values a pixel takes (256, or 17 for the digits, spread evenly over
    0..255: level = round(pixel * (levels - 1) / 255)); `native_size` is the side in pixels where all images
    are squares of one size, else None. `shards` is int64 [len], which file each image lies in, where images
    of one file are best read soon after one another; None: in any order. `unusable` are the (path, reason) of
    what was found at opening to be no image, and is not counted.
    """

    name: str
    channels: int = 3
    levels: int = 256
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    native_size: int | None = None
    shards: np.ndarray | None = None
    unusable: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        raise NotImplementedError

    def path(self, index: int) -> str:
        """What to call an image in a report: its path, relative to the source."""
        raise NotImplementedError

    def encoded(self, index: int) -> bytes | np.ndarray:
        """One image as `decode_batch` takes it: bytes or pixels. Raises OSError where it cannot be read."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The images at `indices`, in that order, renumbered from 0; names of classes stay as they are."""
        raise NotImplementedError

    def _labels_at(self, indices: np.ndarray) -> np.ndarray | None:
        return None if self.labels is None else self.labels[indices]


def upright(image: np.ndarray) -> np.ndarray:
    """uint8 [1 or 3, H, W] as `decode_batch` takes pixels: [H, W, 3]."""
    pixels = image.transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes of which only numbers are known: those up to the largest."""
    if labels.max() >= MOST_CLASSES:
        raise NoLabels(f"labels must number classes from 0 to {MOST_CLASSES - 1}, not {labels.max()}")
    return tuple(str(number) for number in range(int(labels.max()) + 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class ArraySource(Source):
    """Images in memory: `images` is uint8 [N, C, H, W] with C 1 or 3."""

    images: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise TypeError(
                f"images must be uint8 [N, 1 or 3, H, W], not {self.images.dtype} {list(self.images.shape)}"
            )
        if not len(self.images):
            raise TooFewImages(f"{self.name} holds no image; at least one is needed")

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def encoded(self, index: int) -> np.ndarray:
        return upright(self.images[index])

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, images=self.images[chosen], labels=self._labels_at(chosen))


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderSource(Source):
    """Image files under `root`, at any depth, in sorted order; bytes are read when an image is asked for.

    Labels are the names of the first-level subfolders (torchvision's ImageFolder convention), where every
    image lies in one and at least two hold images. `others` counts the files that are no images by name.
    """

    root: Path
    files: tuple[str, ...] = field(repr=False)
    others: int = 0

    @classmethod
    def scan(cls, root: str | os.PathLike[str]) -> Self:
        """Find the JPEG, PNG and WebP files under `root`.

        Raises `MissingFolder` where `root` is no readable folder, `NoImages` where nothing in it looks like
        an image.
        """
        folder = Path(root).expanduser()
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise MissingFolder(
                f"data folder {str(folder)!r} {what}; give a folder of JPEG, PNG or WebP files"
            )
        files, others = [], 0
        for name in _walk(folder):
            if name.lower().endswith(EXTENSIONS):
                files.append(name)
            else:
                others += 1
        if not files:
            held = f"its {others} files are none" if others else "it is empty"
            if any(folder.glob("*.tar")):
                held += f"; give its shards as {str(folder / '*.tar')!r}"
            raise NoImages(f"data folder {str(folder)!r} holds no JPEG, PNG or WebP image: {held}")
        labels, classes = _folder_labels(files)
        return cls(
            name=str(folder),
            root=folder.absolute(),
            files=tuple(files),
            others=others,
            labels=labels,
            classes=classes,
        )

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        return self.files[index]

    def encoded(self, index: int) -> bytes:
        return (self.root / self.files[index]).read_bytes()

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise TooFewImages(f"a subset of {self.name!r} holds no image; at least one is needed")
        return replace(self, files=tuple(self.files[i] for i in chosen), labels=self._labels_at(chosen))


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of all files that are not hidden, sorted by name within each folder, depth first."""
    seen: set[tuple[int, int]] = set()  # a link back to a parent would never end
    pending = [("", True)]
    while pending:
        name, is_folder = pending.pop()
        if not is_folder:
            yield name
            continue
        folder = root / name
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(folder) as entries:
                inside = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise MissingFolder(f"data folder {str(folder)!r} cannot be read: {error.strerror}") from error
        inside.sort(reverse=True)  # the first name lies on top of the stack
        pending += [(f"{name}/{entry}" if name else entry, is_dir) for entry, is_dir in inside]


def _folder_labels(files: list[str]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    parents = [name.split("/", 1)[0] if "/" in name else None for name in files]
    classes = sorted({parent for parent in parents if parent is not None})
    if None in parents or len(classes) < 2:
        return None, None
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[parent] for parent in parents if parent is not None], dtype=np.int64)
    return labels, tuple(classes)
