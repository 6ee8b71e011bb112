"""In which order the images of a source are seen: a function of the seed and the epoch alone."""

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from imagen_fast.data.seeds import ORDER, generator
from imagen_fast.data.sources import Source

# How far from its place in the file an image of a shard may be moved. A few shards of a thousand are then
# read at a time, while neighbours in a file meet in no more than a few batches.
WINDOW: Final = 4096


class Order:
    """An endless stream of positions: one permutation of the source after another.

    Position p is image number p % len of epoch p // len. The images of a source in shards are not moved
    freely: the shards are, and then each image by less than `window` places, so that storage is read nearly
    from front to back.
    """

    def __init__(self, source: Source, seed: int, shuffle: bool, window: int = WINDOW) -> None:
        self._source, self._seed, self._shuffle, self._window = source, seed, shuffle, window
        self._drawn = lru_cache(maxsize=4)(self._draw)
        self._lock = threading.Lock()

    def epoch(self, number: int) -> np.ndarray:
        """The images of an epoch, in order: int64 [len]."""
        with self._lock:  # all threads come to a new epoch at once, and one drawing is enough
            return self._drawn(number)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The images at positions."""
        epochs, places = np.divmod(positions, len(self._source))
        images = np.empty_like(positions)
        for epoch in np.unique(epochs):
            images[epochs == epoch] = self.epoch(int(epoch))[places[epochs == epoch]]
        return images

    def candidates(self, position: int) -> Iterator[int]:
        """The image at a position, then those that may stand in for it."""
        epoch, place = divmod(position, len(self._source))
        order = self.epoch(epoch)
        for further in range(len(order)):
            yield int(order[(place + further) % len(order)])

    def _draw(self, epoch: int) -> np.ndarray:
        count, shards = len(self._source), self._source.shards
        if not self._shuffle:
            return np.arange(count)
        rng = generator(ORDER, self._seed, epoch)
        if shards is None:
            return rng.permutation(count)
        rank = rng.permutation(int(shards.max()) + 1)
        files = np.argsort(rank[shards], kind="stable")
        # Each place and a random part of the window: to sort by that moves nothing further than the window.
        return files[np.argsort(np.arange(count) + self._window * rng.random(count), kind="stable")]
