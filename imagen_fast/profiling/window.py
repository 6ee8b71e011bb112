"""A few steps with every operation, by torch.profiler: from its events, time by cause and a line an op."""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function

from imagen_fast.profiling.events import DATA, WHOLE, Event, read
from imagen_fast.profiling.recording import Window

# Calls of an operation that does next to nothing: what is left is the cost of handing it out.
_TRIALS = 300
_TRIVIAL = "aten::neg"
# Of a window; to read so many takes some ten seconds of the program's time.
_MOST_EVENTS = 100_000
_FEWER = "a smaller --window has fewer"


class Profiler:
    """torch.profiler from now until `finish`; both are called between steps, in the thread that trains.

    Raises:
        RuntimeError: there is one at work already.
    """

    def __init__(self) -> None:
        if torch._C._autograd._profiler_enabled():
            raise RuntimeError("the program uses torch.profiler itself")
        self._cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._profile = _start(self._cuda)
        self._whole: Any = record_function(WHOLE)
        self._whole.__enter__()

    def data(self) -> AbstractContextManager[Any]:
        """To be held while the program waits for input."""
        return record_function(DATA)

    def finish(self, steps: int) -> Window:
        """What happened since the beginning, in so many steps.

        Raises:
            RuntimeError: more than can be read in a few seconds.
        """
        if self._cuda:
            torch.cuda.synchronize()
        events = self._stop()
        if len(events) > _MOST_EVENTS:
            raise RuntimeError(f"{len(events):,} events in {steps} steps are more than are read: {_FEWER}")
        return read([Event.of(event) for event in events], steps, _cost_of_handing_out())

    def drop(self) -> None:
        self._stop()

    def _stop(self) -> list[Any]:
        self._whole.__exit__(None, None, None)
        return _stop(self._profile)


def _start(cuda: bool = False) -> Any:
    made: Any = profile(use_device="cuda" if cuda else None, use_kineto=True, record_shapes=True)
    made.of_imagen_fast = True  # see hooks.watch_torch
    made.__enter__()
    return made


def _stop(started: Any) -> list[Any]:
    started.__exit__(None, None, None)
    return started.kineto_results.events()


def _cost_of_handing_out() -> float:
    """Seconds that any operation takes under the profiler, here and now."""
    nothing = torch.zeros(1)
    started = _start()
    for _ in range(_TRIALS):
        torch.neg(nothing)
    taken = [event.duration_ns() / 1e9 for event in _stop(started) if event.name() == _TRIVIAL]
    return statistics.median(taken) if taken else 0.0
