"""Where the profiler listens in a program: loaders that are waited for, optimisers that update weights.

Each function is called once, with the module that it watches, when that has been imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any

from imagen_fast.profiling import journal, processor_time
from imagen_fast.profiling.phases import begins_anew, next_of


def watch_torch(torch: ModuleType) -> None:
    from torch.autograd import profiler
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from torch.utils.data import dataloader

    register_optimizer_step_post_hook(lambda optimizer, args, kwargs: _updated(optimizer))

    iterator: Any = dataloader._BaseDataLoaderIter
    iterator.__next__ = _fetching(iterator.__next__, lambda it: (it, it._num_workers))
    loader: Any = dataloader.DataLoader
    loader.__iter__ = _starting(loader.__iter__)

    # There is one such profiler in a process: the program's own comes first.
    theirs: Any = profiler.profile
    prepare = theirs._prepare_trace

    @functools.wraps(prepare)
    def _prepare_trace(self: Any) -> Any:
        notes = journal.current()
        if notes is not None and not getattr(self, "of_imagen_fast", False):
            journal.guarded(notes.phases.program_profiles)
        return prepare(self)

    theirs._prepare_trace = _prepare_trace


def watch_loader(module: ModuleType) -> None:
    loader: Any = module.Loader
    prefetch = loader._prefetch

    @functools.wraps(prefetch)
    def _prefetch(self: Any, starts: Any) -> Any:
        return _Watched(prefetch(self, starts), self._pool._max_workers)

    loader._prefetch = _prefetch


def watch_optimizer(module: ModuleType) -> None:
    optimizer: Any = module.MasterAdamW
    update = optimizer.step

    @functools.wraps(update)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = update(self, *args, **kwargs)
        _updated(self)
        return made

    optimizer.step = step


def _updated(optimizer: object) -> None:
    notes = journal.current() or journal.in_a_fork()
    if notes is not None:
        journal.guarded(notes.updated, optimizer)


def _fetching(get: Callable[[Any], Any], what: Callable[[Any], tuple[object, int]]) -> Callable[[Any], Any]:
    """`get`, the `__next__` of a loader's iterator, noted; `what` tells its source and its workers."""

    @functools.wraps(get)
    def __next__(self: Any) -> Any:
        notes = journal.current()
        source, workers = what(self)
        if notes is None:
            return next_of(source, lambda: get(self))
        return notes.fetch(source, lambda: get(self), processor_time.of_thread, workers)

    return __next__


def _starting(begin: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`begin`, a loader's `__iter__`, noted: to start workers takes time in which nothing else goes on."""

    @functools.wraps(begin)
    def __iter__(self: Any) -> Any:
        notes = journal.current()
        with nullcontext() if notes is None else notes.starting():
            made = begin(self)
        begins_anew(made)
        return made

    return __iter__


class _Watched(Iterator[Any]):
    """Batches of our own loader, whose threads belong to the training process."""

    def __init__(self, batches: Any, workers: int) -> None:
        self._batches, self._workers = batches, workers

    def __next__(self) -> Any:
        notes = journal.current()
        if notes is None:
            return next_of(self, lambda: next(self._batches))
        return notes.fetch(self, lambda: next(self._batches), processor_time.of_process, self._workers)

    def close(self) -> None:
        self._batches.close()
