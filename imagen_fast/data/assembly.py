"""A batch put together from the images of a source: in parts, each of which a thread fills by itself."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imagen_fast.data.augment import (
    Augmentation,
    CenterCrop,
    RandomResizedCrop,
    fixed_view,
    random_shifts,
    to_channels,
)
from imagen_fast.data.batch import Batch
from imagen_fast.data.decode import DecodedBatch, decode_batch
from imagen_fast.data.decode.batch import Sampler
from imagen_fast.data.errors import AllCorrupt
from imagen_fast.data.order import Order
from imagen_fast.data.seeds import BATCH, CROP, generator
from imagen_fast.data.sources import ArraySource, Source, upright
from imagen_fast.data.views import Views

# One task of a thread: long enough that its start costs nothing, short enough that all threads work on
# the batch that is waited for.
CHUNK: Final = 16


class Work(NamedTuple):
    """The parts of a batch, in any order and thread, and what makes the batch after them."""

    parts: list[Callable[[], None]]
    finish: Callable[[], Batch]


@dataclass(frozen=True)
class Form:
    """What the images of a batch are: see `decode_batch`. `pinned`: in memory that a GPU copies from."""

    size: int
    channels: int
    dtype: torch.dtype
    patch: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pinned: bool

    @property
    def plain(self) -> "Form":
        """The same as bytes of pixels."""
        return replace(self, dtype=torch.uint8, patch=None)

    def empty(self, count: int) -> Tensor:
        shape: tuple[int, ...] = (self.channels, self.size, self.size)
        if self.patch is not None:
            shape = ((self.size // self.patch) ** 2, self.patch**2 * self.channels)
        # The caller may be in inference mode, but the threads that fill it are not.
        with torch.inference_mode(False):
            return torch.empty((count, *shape), dtype=self.dtype, pin_memory=self.pinned)

    def made_of(self, pixels: np.ndarray) -> Tensor:
        """Of uint8 [B, C, H, W] of this size."""
        if self == self.plain:
            return torch.from_numpy(pixels)
        whole = np.tile((0, 0, self.size, self.size), (len(pixels), 1))
        return self.decode([upright(image) for image in pixels], whole).pixels

    def decode(
        self,
        images: list[bytes | np.ndarray],
        crops: Sampler | np.ndarray,
        out: Tensor | None = None,
        mirrored: np.ndarray | None = None,
    ) -> DecodedBatch:
        return decode_batch(
            images,
            crops,
            self.size,
            self.patch,
            mean=self.mean,
            std=self.std,
            flip=0.0 if mirrored is None else mirrored,
            dtype=self.dtype,
            channels=self.channels,
            filter="bicubic",
            threads=1,  # this one
            out=out,
        )


class Assembler:
    """Batches as functions of (seed, position); notes in `failed` which images are unusable, and why."""

    def __init__(self, source: Source, augment: Augmentation, seed: int, order: Order, form: Form) -> None:
        self.source, self.augment, self.form = source, augment, form
        self._seed, self._order = seed, order
        self._fixed_view = fixed_view(source)
        self._failed = dict(source.unusable)
        self._lock = threading.Lock()

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, reason), each once, sorted by path."""
        with self._lock:
            return sorted(self._failed.items())

    def stream(self, first: int, count: int) -> Work:
        """Augmented, the images at `count` positions of the stream."""
        rng = generator(BATCH, self._seed, first)
        mirrored = rng.random(count) < (0.5 if self.augment.flip else 0)
        indices = np.full(count, -1, dtype=np.int64)
        # What is shifted is so before it is normalised.
        direct = self._is_direct(self.augment)
        form = self.form.plain if direct or self.augment.shift else self.form
        images = form.empty(count)

        def fill(part: slice) -> None:
            if direct:
                indices[part] = self._order.at(first + np.arange(count)[part])
                self._gather(images[part], indices[part], mirrored[part])
            else:
                self._fill_stream(form, images[part], indices[part], mirrored[part], first + part.start)

        def finish() -> Batch:
            if form == self.form and not self.augment.shift:
                return self._batch(images, indices)
            pixels = images.numpy()
            if self.augment.shift:
                pixels = random_shifts(pixels, self.augment.shift, rng)
            return self._batch(self.form.made_of(pixels), indices)

        return _work(count, direct, fill, finish)

    def in_order(self, first: int, count: int) -> Work:
        """In their fixed view, the source's own images from `first` on; without those that are unusable."""
        indices = np.full(count, -1, dtype=np.int64)
        direct = self._is_direct(Augmentation())
        form = self.form.plain if direct else self.form
        images = form.empty(count)

        def fill(part: slice) -> None:
            rows = np.arange(part.stop - part.start)
            wanted, mirrored = first + part.start + rows, np.zeros(len(rows), bool)
            if direct:
                indices[part] = wanted
                self._gather(images[part], wanted, mirrored)
            else:
                self._fill(form, images[part], indices[part], rows, wanted, self._fixed_view, mirrored)

        def finish() -> Batch:
            made = images if form == self.form else self.form.made_of(images.numpy())
            good = indices >= 0
            if good.all():
                return self._batch(made, indices)
            return self._batch(made[torch.from_numpy(good)], indices[good])

        return _work(count, direct, fill, finish)

    def all_corrupt(self) -> AllCorrupt:
        path, reason = self.failed[0]
        return AllCorrupt(
            f"none of the {len(self.source)} images of {self.source.name!r} can be decoded; {path}: {reason}"
        )

    def _batch(self, images: Tensor, indices: np.ndarray) -> Batch:
        labels = None if self.source.labels is None else torch.from_numpy(self.source.labels[indices])
        return Batch(images, labels, torch.from_numpy(indices))

    # Images in memory that need no resizing: one gather instead of a task an image.

    def _is_direct(self, augment: Augmentation) -> bool:
        return (
            isinstance(self.source, ArraySource)
            and augment.crop is None
            and self.source.native_size == self.form.size
        )

    def _gather(self, images: Tensor, indices: np.ndarray, mirrored: np.ndarray) -> None:
        assert isinstance(self.source, ArraySource)
        pixels = to_channels(self.source.images[indices], self.form.channels)
        pixels[mirrored] = pixels[mirrored][..., ::-1]
        images.copy_(torch.from_numpy(pixels))

    # All others: each row of a batch by itself, in the threads.

    def _fill_stream(
        self, form: Form, images: Tensor, indices: np.ndarray, mirrored: np.ndarray, first: int
    ) -> None:
        rows = np.arange(len(images))
        candidates = [self._order.candidates(first + row) for row in range(len(images))]
        while len(rows):
            found = [next(candidates[row], None) for row in rows]
            if None in found:
                raise self.all_corrupt()
            # Drawn anew for each candidate: what a broken image used up must not matter.
            crop = self.augment.crop
            view = self._fixed_view if crop is None else _OneByOne(crop, self._seed, first + rows)
            self._fill(form, images, indices, rows, np.array(found), view, mirrored[rows])
            rows = rows[indices[rows] < 0]

    def _fill(
        self,
        form: Form,
        images: Tensor,
        indices: np.ndarray,
        rows: np.ndarray,
        wanted: np.ndarray,
        view: "CenterCrop | _OneByOne",
        mirrored: np.ndarray,
    ) -> None:
        """Put images of the source into rows; of one that is unusable note why, and leave its index."""
        files: list[bytes | np.ndarray] = []
        there = np.ones(len(rows), bool)
        for i, index in enumerate(wanted):
            try:
                files.append(self.source.encoded(index))
            except OSError as error:
                there[i] = False
                self._note(index, error.strerror or str(error))
        rows, wanted = rows[there], wanted[there]
        view = view if isinstance(view, CenterCrop) else view.only(there)
        whole = len(rows) == len(images)
        made = form.decode(files, view, images if whole else None, mirrored[there])
        if not whole:
            images[torch.from_numpy(rows)] = made.pixels
        for i, reason in made.failed.items():
            self._note(wanted[i], reason)
        good = np.array([i not in made.failed for i in range(len(rows))], bool)
        indices[rows[good]] = wanted[good]

    def _note(self, index: int, reason: str) -> None:
        with self._lock:
            self._failed[self.source.path(index)] = reason


@dataclass(frozen=True)
class _OneByOne:
    """Random crops that depend on the positions in the stream alone."""

    crop: RandomResizedCrop
    seed: int
    positions: np.ndarray

    def only(self, which: np.ndarray) -> "_OneByOne":
        return replace(self, positions=self.positions[which])

    def views(self, sizes: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Views:
        boxes = [
            self.crop.box(generator(CROP, self.seed, int(position)), int(width), int(height))
            for position, (width, height) in zip(self.positions, sizes, strict=True)
        ]
        return Views.of_boxes(np.array(boxes, dtype=np.int64).reshape(-1, 4), size)


def _work(count: int, whole: bool, fill: Callable[[slice], None], finish: Callable[[], Batch]) -> Work:
    """In chunks, or as one part."""
    chunk = count if whole else CHUNK
    slices = [slice(first, min(first + chunk, count)) for first in range(0, count, chunk)]
    return Work([partial(fill, part) for part in slices], finish)
