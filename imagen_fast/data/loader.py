"""Batches of a source as training takes them, each a pure function of (seed, step)."""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import numpy as np
import torch

from imagen_fast.data.assembly import Assembler, Form, Work
from imagen_fast.data.augment import Augmentation, augmentation_for
from imagen_fast.data.batch import Batch, Sent, Transfer
from imagen_fast.data.decode.batch import processors
from imagen_fast.data.device import checked_device
from imagen_fast.data.order import Order
from imagen_fast.data.sources import Source
from imagen_fast.data.under_way import UnderWay
from imagen_fast.errors import InvalidInput

_ONE_PROCESS: Final = "a loader belongs to the process that made it; make one in each process"


class Loader:
    """An endless stream of batches that continues exactly from any step, and finite passes over it.

    The stream is one permutation of the source after another (the epoch's order depends on the seed and
    the epoch alone, see `Order`), cut into batches with nothing left over: a batch at the end of an epoch
    takes its last images from the next, and so a source smaller than a batch works too. An image that cannot
    be decoded is replaced by the next good one in its epoch's order and listed in `failed`. Neither the
    number of threads nor where the stream was entered changes any bit.

    `for batch in loader` is one pass: `len(loader)` steps of the stream, as many images as the source has and
    what is missing to a whole batch, so that passes drift from epochs by less than a step each; use `once` to
    validate. `state_dict` tells where it is, in the middle of a pass too, and the first pass after
    `load_state_dict` goes on from there, so that it serves as the data loader of a plain PyTorch loop, of
    Lightning, and, with `as_dicts`, of transformers' Trainer, in its `get_train_dataloader`.

    Args:
        source: where the images come from.
        batch_size: images a batch, in this process.
        size: side in pixels of the square images that come out.
        augment: the random views of training; None takes those that suit the source.
        seed: of the order and of all augmentation, at least 0.
        threads: that decode; None takes every processor this process may use.
        shuffle: False keeps the source's order in every epoch.
        channels: 1 or 3; None takes the source's.
        dtype: uint8, the pixels as bytes; float32, bfloat16 or float16, normalised by `mean` and `std`.
        patch: side of a patch in pixels, for tokens [B, N, patch * patch * C] in place of pixels.
        device: where batches arrive. To a GPU they are copied from pinned memory on a stream of its own, and
            what the caller computes next waits for that there.
        as_dicts: passes yield `Batch.as_dict()`.
        rank, world: of `world` processes each takes its own `batch_size` images of a step; `once` is not
            divided. None: those of torch.distributed where that is initialised by now, else one process.
        ahead: batches under way beyond the one that is waited for.

    Attributes:
        steps_per_epoch: steps that take at least as many images as there are.
        mean, std: per channel, on the scale 0..1, for the channels that come out.
        waited: seconds that callers have spent waiting for batches so far. More than a GPU was idle, since it
            works while the host waits.

    A loader belongs to the process that made it: it has threads, which neither a fork nor pickle can copy.

    Raises `InvalidInput` for a number out of range, `BackendUnavailable` for a GPU that is not there, and
    `AllCorrupt`, when a batch is asked for, where not one image can be decoded.
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
        dtype: torch.dtype = torch.uint8,
        patch: int | None = None,
        device: torch.device | str = "cpu",
        as_dicts: bool = False,
        rank: int | None = None,
        world: int | None = None,
        ahead: int = 2,
    ) -> None:
        if not isinstance(source, Source):
            raise InvalidInput(
                f"source must be a Source, which open_source makes of a path, not {type(source).__name__}"
            )
        rank, world = _place(rank, world)
        _at_least(1, batch_size=batch_size, size=size, threads=1 if threads is None else threads, world=world)
        _at_least(0, seed=seed, rank=rank, ahead=ahead)
        if rank >= world:
            raise InvalidInput(f"rank must be below the number of processes, {world}, not {rank}")
        if channels not in (None, 1, 3):
            raise InvalidInput(f"channels must be 1 or 3, not {channels}")
        self.source = source
        self.batch_size = batch_size
        self.size = size
        self.augment = augmentation_for(source) if augment is None else augment
        self.seed = seed
        self.channels = channels or source.channels
        self.mean, self.std = _statistics(source, self.channels)
        self.device = checked_device(device)
        self.as_dicts = as_dicts
        self.steps_per_epoch = -(-len(source) // (batch_size * world))
        self.waited = 0.0
        self._rank, self._world, self._ahead = rank, world, ahead
        on_gpu = self.device.type == "cuda"
        form = Form(size, self.channels, dtype, patch, self.mean, self.std, pinned=on_gpu)
        if form != form.plain:
            form.decode([], np.empty((0, 4), np.int64))  # which refuses what cannot be
        self._assembler = Assembler(source, self.augment, seed, Order(source, seed, shuffle), form)
        self._transfer = Transfer(self.device) if on_gpu else None
        # Steps: where the next pass begins, and how far the caller has come.
        self._next = self._step = 0
        self._waited_in_loops = self._computed = 0.0
        self._process, self._closed = os.getpid(), False
        self._pool = ThreadPoolExecutor(threads or processors(), thread_name_prefix="imagen-fast-data")

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(path, reason) of every image found unusable so far, each once, sorted by path."""
        return self._assembler.failed

    @property
    def wait_share(self) -> float:
        """The share of the time of loops over batches, what they do with them included, that was waiting."""
        return self._waited_in_loops / max(self._waited_in_loops + self._computed, 1e-9)

    # The stream.

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
        for batch in self._prefetch(
            self._under_way(self._assembler.in_order(first, min(self.batch_size, len(self.source) - first)))
            for first in range(0, len(self.source), self.batch_size)
        ):
            if len(batch.indices):
                found = True
                yield batch
        if not found:
            raise self._assembler.all_corrupt()

    # Passes, and where they are.

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        first, self._step = self._next, self._next
        # Wherever the caller leaves this pass: the next one is another epoch.
        self._next = (first // len(self) + 1) * len(self)
        for batch in self._prefetch(self._start(step) for step in range(first, self._next)):
            self._step += 1
            yield batch.as_dict() if self.as_dicts else batch

    def seek(self, step: int) -> None:
        """Begin the next pass at this step, counted over all epochs."""
        _at_least(0, step=step)
        self._next = self._step = step

    def set_epoch(self, epoch: int) -> None:
        """Begin the next pass with this epoch; if `seek` or `load_state_dict` led into it, from there."""
        _at_least(0, epoch=epoch)
        if self._next // len(self) != epoch:
            self.seek(epoch * len(self))

    def state_dict(self) -> dict[str, int]:
        """How far passes have come: the next step, counted over all epochs, and what it depends on."""
        return {"step": self._step, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass where another loader was.

        The batches that follow are the same bit for bit if its arguments are. Raises `InvalidInput` where
        the step of `state` is no step of this loader's stream.
        """
        step = state.get("step") if isinstance(state, dict) else None
        if not isinstance(step, int) or step < 0:
            raise InvalidInput(f"the state must be what state_dict returns, with a step, not {state!r}")
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise InvalidInput(
                    f"the state is of another stream: {name.replace('_', ' ')} was {state.get(name)}, "
                    f"now {value}"
                )
        self.seek(step)

    def _identity(self) -> dict[str, int]:
        return {
            "images": len(self.source),
            "images_a_step": self.batch_size * self._world,
            "seed": self.seed,
        }

    def __reduce__(self) -> NoReturn:
        raise InvalidInput(_ONE_PROCESS)

    def close(self) -> None:
        """End the threads; no batch can be asked for afterwards."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Batches under way.

    def _start(self, step: int) -> UnderWay[Sent]:
        """Set the threads to work on one step of the stream."""
        first = (step * self._world + self._rank) * self.batch_size
        return self._under_way(self._assembler.stream(first, self.batch_size))

    def _under_way(self, work: Work) -> UnderWay[Sent]:
        if os.getpid() != self._process:
            raise InvalidInput(_ONE_PROCESS)
        if self._closed:
            raise InvalidInput("the loader was closed")
        send = Sent if self._transfer is None else self._transfer.send
        return UnderWay(self._pool, work.parts, lambda: send(work.finish()))

    def _prefetch(self, starts: Iterator[UnderWay[Sent]]) -> Iterator[Batch]:
        """Keep `ahead` batches under way beyond the one that is waited for."""
        started: deque[UnderWay[Sent]] = deque()
        came = time.perf_counter()  # when the caller last did

        def hand_out() -> Iterator[Batch]:
            nonlocal came
            batch = self._wait(started.popleft())
            left = time.perf_counter()
            self._waited_in_loops += left - came
            try:
                yield batch
            finally:  # it may leave the loop here
                came = time.perf_counter()
                self._computed += came - left

        try:
            for batch in starts:
                started.append(batch)
                if len(started) > self._ahead:
                    yield from hand_out()
            while started:
                yield from hand_out()
        finally:
            for batch in started:
                batch.cancel()

    def _wait(self, batch: UnderWay[Sent]) -> Batch:
        begin = time.perf_counter()
        try:
            return batch.result().receive()
        except BaseException:
            batch.cancel()
            raise
        finally:
            self.waited += time.perf_counter() - begin


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if distributed and world is None else 0
    if world is None:
        world = torch.distributed.get_world_size() if distributed else 1
    return rank, world


def _statistics(source: Source, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for the channels asked for; gray from colour takes their averages."""
    if channels == source.channels:
        return source.mean, source.std
    if channels == 3:
        return source.mean * 3, source.std * 3
    return (sum(source.mean) / 3,), (sum(source.std) / 3,)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        name = name.replace("_", " ")
        if not isinstance(value, int | np.integer):
            raise InvalidInput(f"{name} must be a whole number, not {value!r}")
        if value < least:
            raise InvalidInput(f"{name} must be at least {least}, not {value}")
