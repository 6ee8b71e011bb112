"""Batches of uint8 pixels from a source, each a pure function of (seed, step)."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
import torch

from imagen_fast.data.augment import (
    Augmentation,
    CenterCrop,
    RandomResizedCrop,
    augmentation_for,
    fixed_view,
    random_shifts,
    to_channels,
)
from imagen_fast.data.decode import decode_batch
from imagen_fast.data.decode.batch import processors
from imagen_fast.data.errors import AllCorrupt
from imagen_fast.data.seeds import BATCH, CROP, ORDER, generator
from imagen_fast.data.sources import ArraySource, Source
from imagen_fast.data.views import Views
from imagen_fast.errors import InvalidInput

# One task of a thread: long enough that its start costs nothing, short enough that all threads work on
# the batch that is waited for.
CHUNK: Final = 16


class Batch(NamedTuple):
    """`images` uint8 [B, C, H, W]; `labels` int64 [B] or None; `indices` int64 [B] into the source."""

    images: torch.Tensor
    labels: torch.Tensor | None
    indices: torch.Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device, copied asynchronously where that is possible."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(
            self.images.to(device, non_blocking=True), labels, self.indices.to(device, non_blocking=True)
        )


class Loader:
    """An endless stream of batches that continues exactly from any step, and finite passes in order.

    The stream is one permutation of the source after another (the epoch's order depends on the seed and
    the epoch alone), cut into batches with nothing left over: a batch at the end of an epoch takes its last
    images from the next, and so a source smaller than a batch works too. An image that cannot be decoded is
    replaced by the next good one in its epoch's order and listed in `failed`. Neither the number of threads
    nor where the stream was entered changes any bit.

    Args:
        source: where the images come from.
        batch_size: images a batch, in this process.
        size: side in pixels of the square images that come out.
        augment: the random views of training; None takes those that suit the source.
        seed: of the order and of all augmentation, at least 0.
        threads: that decode; None takes every processor this process may use.
        shuffle: False keeps the source's order in every epoch.
        channels: 1 or 3; None takes the source's.
        rank, world: of `world` processes each takes its own `batch_size` images of a step; `once` is not
            divided.
        ahead: batches under way beyond the one that is waited for.

    Attributes:
        steps_per_epoch: steps in which every image is seen at least once.
        mean, std: per channel, on the scale 0..1, for the channels that come out.
        waited: seconds that callers have spent waiting for batches so far.

    Raises `InvalidInput` for a number out of range, and `AllCorrupt`, when a batch is asked for, where not
    one image can be decoded.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        size: int,
        augment: Augmentation | None = None,
        seed: int = 0,
        *,
        threads: int | None = None,
        shuffle: bool = True,
        channels: int | None = None,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
    ) -> None:
        _at_least(1, batch_size=batch_size, size=size, threads=1 if threads is None else threads, world=world)
        _at_least(0, seed=seed, rank=rank, ahead=ahead)
        if channels not in (None, 1, 3):
            raise InvalidInput(f"channels must be 1 or 3, not {channels}")
        self.source = source
        self.batch_size = batch_size
        self.size = size
        self.augment = augmentation_for(source) if augment is None else augment
        self.seed = seed
        self.shuffle = shuffle
        self.channels = channels or source.channels
        self.mean, self.std = _statistics(source, self.channels)
        self.steps_per_epoch = -(-len(source) // (batch_size * world))
        self.waited = 0.0
        self._rank, self._world, self._ahead = rank, world, ahead
        self._fixed_view = fixed_view(source)
        self._order = lru_cache(maxsize=4)(self._draw_order)
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads or processors(), thread_name_prefix="imagen-fast-data")

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, reason) of every image found unusable so far, each once, sorted by path."""
        with self._lock:
            return sorted(self._failed.items())

    def at(self, step: int) -> Batch:
        """The batch of one step of the stream."""
        return self._wait(self._start(step))

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from `start_step` on, without end; the next ones are decoded meanwhile."""
        return self._prefetch(self._start(step) for step in itertools.count(start_step))

    def once(self) -> Iterator[Batch]:
        """Every image once, in the source's order, in its fixed view; the last batch may be smaller.

        An image that cannot be decoded is left out, and listed: nothing is evaluated twice in its stead.
        """
        found = False
        firsts = range(0, len(self.source), self.batch_size)
        for batch in self._prefetch(self._start_in_order(first) for first in firsts):
            if len(batch.indices):
                found = True
                yield batch
        if not found:
            raise self._all_corrupt()

    def close(self) -> None:
        """End the threads; no batch can be asked for afterwards."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prefetch(self, starts: Iterator["_Started"]) -> Iterator[Batch]:
        """Keep `ahead` batches under way beyond the one that is waited for."""
        started: deque[_Started] = deque()
        try:
            for batch in starts:
                started.append(batch)
                if len(started) > self._ahead:
                    yield self._wait(started.popleft())
            while started:
                yield self._wait(started.popleft())
        finally:
            for batch in started:
                batch.cancel()

    def _wait(self, batch: "_Started") -> Batch:
        begin = time.perf_counter()
        try:
            for task in batch.tasks:
                task.result()  # an exception of a thread comes out here
            return batch.finish()
        except BaseException:
            batch.cancel()
            raise
        finally:
            self.waited += time.perf_counter() - begin

    def _start(self, step: int) -> "_Started":
        """Set the threads to work on one step of the stream."""
        first = (step * self._world + self._rank) * self.batch_size
        rng = generator(BATCH, self.seed, first)
        mirrored = rng.random(self.batch_size) < (0.5 if self.augment.flip else 0)
        if self._is_direct(self.augment):
            indices = self._stream(first)
            return _Started([], lambda: self._finish(self._gather(indices, mirrored), indices, rng))

        images, indices = self._buffers(self.batch_size)
        tasks = [
            self._pool.submit(
                self._fill_stream, images[part], indices[part], mirrored[part], first + part.start
            )
            for part in _chunks(self.batch_size)
        ]
        return _Started(tasks, lambda: self._finish(images, indices, rng))

    def _start_in_order(self, first: int) -> "_Started":
        """Set the threads to work on the source's own images from `first` on."""
        count = min(self.batch_size, len(self.source) - first)
        if self._is_direct(Augmentation()):
            indices = np.arange(first, first + count)
            return _Started([], lambda: self._finish(self._gather(indices, np.zeros(count, bool)), indices))

        images, indices = self._buffers(count)
        tasks = [
            self._pool.submit(self._fill_in_order, images[part], indices[part], first + part.start)
            for part in _chunks(count)
        ]

        def finish() -> Batch:
            good = indices >= 0
            return self._finish(images, indices) if good.all() else self._finish(images[good], indices[good])

        return _Started(tasks, finish)

    def _finish(
        self, images: np.ndarray, indices: np.ndarray, rng: np.random.Generator | None = None
    ) -> Batch:
        if rng is not None and self.augment.shift:
            images = random_shifts(images, self.augment.shift, rng)
        labels = None if self.source.labels is None else torch.from_numpy(self.source.labels[indices])
        return Batch(torch.from_numpy(images), labels, torch.from_numpy(indices))

    # Images in memory that need no resizing: one gather instead of a task an image.

    def _is_direct(self, augment: Augmentation) -> bool:
        return (
            isinstance(self.source, ArraySource)
            and augment.crop is None
            and self.source.native_size == self.size
        )

    def _gather(self, indices: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        assert isinstance(self.source, ArraySource)
        images = to_channels(self.source.images[indices], self.channels)
        images[mirrored] = images[mirrored][..., ::-1]
        return images

    # All others: each row of a batch by itself, in the threads.

    def _buffers(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((count, self.channels, self.size, self.size), dtype=np.uint8)
        return images, np.full(count, -1, dtype=np.int64)

    def _fill_stream(self, images: np.ndarray, indices: np.ndarray, mirrored: np.ndarray, first: int) -> None:
        rows = np.arange(len(images))
        candidates = [self._candidates(first + row) for row in range(len(images))]
        while len(rows):
            found = [next(candidates[row], None) for row in rows]
            if None in found:
                raise self._all_corrupt()
            # Drawn anew for each candidate: what a broken image used up must not matter.
            crop = self.augment.crop
            view = self._fixed_view if crop is None else _OneByOne(crop, self.seed, first + rows)
            self._fill(images, indices, rows, np.array(found), view, mirrored[rows])
            rows = rows[indices[rows] < 0]

    def _fill_in_order(self, images: np.ndarray, indices: np.ndarray, first: int) -> None:
        rows = np.arange(len(images))
        self._fill(images, indices, rows, first + rows, self._fixed_view, np.zeros(len(rows), bool))

    def _fill(
        self,
        images: np.ndarray,
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
        made = decode_batch(
            files,
            view if isinstance(view, CenterCrop) else view.only(there),
            self.size,
            flip=mirrored[there],
            dtype=torch.uint8,
            channels=self.channels,
            filter="bicubic",
            threads=1,  # this one
            out=torch.from_numpy(images) if len(rows) == len(images) else None,
        )
        if len(rows) < len(images):
            images[rows] = made.pixels.numpy()
        for i, reason in made.failed.items():
            self._note(wanted[i], reason)
        good = np.array([i not in made.failed for i in range(len(rows))], bool)
        indices[rows[good]] = wanted[good]

    def _note(self, index: int, reason: str) -> None:
        with self._lock:
            self._failed[self.source.path(index)] = reason

    # The order of the stream. Position p is image number p % len of epoch p // len.

    def _draw_order(self, epoch: int) -> np.ndarray:
        count = len(self.source)
        return generator(ORDER, self.seed, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _stream(self, first: int) -> np.ndarray:
        """The images at one batch of positions."""
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), len(self.source))
        return np.concatenate(
            [self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        )

    def _candidates(self, position: int) -> Iterator[int]:
        """The image at a position, then those that may stand in for it."""
        epoch, place = divmod(position, len(self.source))
        order = self._order(epoch)
        for further in range(len(order)):
            yield int(order[(place + further) % len(order)])

    def _all_corrupt(self) -> AllCorrupt:
        path, reason = self.failed[0]
        return AllCorrupt(
            f"none of the {len(self.source)} images of {self.source.name!r} can be decoded; {path}: {reason}"
        )


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


@dataclass(frozen=True)
class _Started:
    """A batch under way: the tasks that fill it, and what is left to do after them."""

    tasks: list[Future[None]]
    finish: Callable[[], Batch]

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()


def _chunks(count: int) -> list[slice]:
    return [slice(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def _statistics(source: Source, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for the channels asked for; gray from colour takes their averages."""
    if channels == source.channels:
        return source.mean, source.std
    if channels == 3:
        return source.mean * 3, source.std * 3
    return (sum(source.mean) / 3,), (sum(source.std) / 3,)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise InvalidInput(f"{name.replace('_', ' ')} must be at least {least}, not {value}")
