"""What the profiler does to a program besides watching it: a window of every operation, and ceilings.

Both happen between two steps, in the thread that trains, once in a run.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from enum import Enum, auto
from typing import Any

from imagen_fast.profiling import program
from imagen_fast.profiling.recording import Ceilings, Window

# Before these many steps a program warms up: it compiles, fills caches and its queue of batches.
_WARM_STEPS = 10
# Unless steps are slow: then this many, and seconds, do.
_WARM_SLOW_STEPS = 3
_WARM_SECONDS = 5.0
# Seconds after which a window is closed at the next step.
_LONGEST_WINDOW = 20.0
# Steps with the batch before again, and so many as they come; loaders that run ahead have then used up
# what they got ready meanwhile.
_BLOCK = 16
_ROUNDS = 2


class Phase(Enum):
    WARM = auto()
    WINDOW = auto()
    AS_IS = auto()
    SAME_BATCH = auto()
    DRAIN = auto()
    STEADY = auto()


class Phases:
    """The order of them: warm, window, ceilings where they are asked for, and steady from there."""

    def __init__(self, task: program.Task, world: int) -> None:
        self.task = task
        self.window: Window | None = None
        self.ceilings: Ceilings | None = None
        self.absent: dict[str, str] = {}
        self.held: Any = None
        self._source: object = None  # that `held` came from
        self._last: tuple[object, Any] = None, None  # source and batch of this step's last fetch
        self._world = world
        self._phase = Phase.WARM
        self._steps = 0  # of this phase
        self._entered = time.monotonic()
        self._measured: dict[Phase, list[float]] = {Phase.AS_IS: [], Phase.SAME_BATCH: []}
        self._rounds = 0
        self._fetched = self._replayed = 0  # batches of this step
        self._a_step = 1  # batches of a step
        self._profiler: Any = None
        # Until they are there, why they are not.
        too_short = "the program ended before that"
        self.absent["window"] = too_short if task.window else "it was not asked for"
        self.absent["ceilings"] = too_short if task.ceilings else "they were not asked for (--ceilings)"

    @property
    def undisturbed(self) -> bool:
        """Whether the step that ends now is as the program runs by itself."""
        return self._phase in (Phase.WARM, Phase.AS_IS, Phase.STEADY)

    def waiting(self) -> AbstractContextManager[Any]:
        """To be held while the program waits for input, so that a window shows it."""
        return nullcontext() if self._profiler is None else self._profiler.data()

    # The same batch again.

    def hold(self, source: object, batch: Any) -> None:
        """Remember a batch, where it may be wanted again."""
        self._fetched += 1
        if self._phase is Phase.AS_IS:
            self._last = source, batch

    def replays(self, source: object) -> bool:
        """Whether `held` is to be taken now: a loop over other data (a validation, say) is left alone."""
        if self._phase is not Phase.SAME_BATCH or source is not self._source:
            return False
        self._replayed += 1
        return self._replayed <= self._a_step

    # The order.

    def step_ended(self, seconds: float) -> None:
        if self._phase is Phase.WARM and not self._steps:
            self._entered = time.monotonic()
        self._steps += 1
        # What was fetched last is what the step learned from; a validation fetches before.
        if self._last[0] is not None:
            (self._source, self.held), self._last = self._last, (None, None)
        if self._phase in self._measured:
            self._measured[self._phase].append(seconds)
        if self._phase is not Phase.SAME_BATCH:
            self._a_step = max(self._fetched, 1)
        self._fetched = self._replayed = 0
        if self._phase is Phase.WARM and self._is_warm():
            self._begin_window() if self.task.window else self._begin_ceilings()
        elif self._phase is Phase.WINDOW and self._window_is_full():
            self._end_window()
            self._begin_ceilings()
        elif self._phase is Phase.AS_IS and self._steps >= _BLOCK:
            self._enter(Phase.SAME_BATCH if self._source is not None else Phase.STEADY)
            if self._source is None:
                self.absent["ceilings"] = "no batch was seen to come from a loader that is watched"
        elif self._phase is Phase.SAME_BATCH and self._steps >= _BLOCK:
            self._rounds += 1
            if self._rounds < _ROUNDS:
                self._enter(Phase.DRAIN)
            else:
                self._end_ceilings()
        elif self._phase is Phase.DRAIN and self._steps >= 2 * _BLOCK:
            self._enter(Phase.AS_IS)

    def _enter(self, phase: Phase) -> None:
        self._phase, self._steps, self._entered = phase, 0, time.monotonic()

    def _is_warm(self) -> bool:
        if self._steps >= _WARM_STEPS:
            return True
        # By steps alone where several processes have to do the same at the same time.
        slow = self._world == 1 and time.monotonic() - self._entered >= _WARM_SECONDS
        return slow and self._steps >= _WARM_SLOW_STEPS

    def _begin_ceilings(self) -> None:
        self._enter(Phase.AS_IS if self.task.ceilings else Phase.STEADY)

    def _end_ceilings(self) -> None:
        as_is, same = (statistics.fmean(self._measured[p]) for p in (Phase.AS_IS, Phase.SAME_BATCH))
        self.ceilings = Ceilings(as_is, same_batch=same, rounds=self._rounds)
        self._source = self.held = None
        self._enter(Phase.STEADY)

    # The window.

    def _begin_window(self) -> None:
        from imagen_fast.profiling.window import Profiler  # which needs PyTorch

        try:
            self._profiler = Profiler()
        except RuntimeError as error:
            self.absent["window"] = str(error)
            self._begin_ceilings()
            return
        self._enter(Phase.WINDOW)

    def _window_is_full(self) -> bool:
        full = self._steps >= self.task.window
        return full or time.monotonic() - self._entered >= _LONGEST_WINDOW

    def _end_window(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:  # it was abandoned meanwhile
            return
        try:
            self.window = profiler.finish(self._steps)
        except Exception as error:  # what it records is PyTorch's affair; the program must go on
            self.absent["window"] = f"torch.profiler failed: {type(error).__name__}: {error}"
            print(f"imagen-fast profile: {self.absent['window']}", file=sys.stderr)

    def abandon_window(self, why: str) -> None:
        """Where the program needs torch.profiler for itself."""
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.drop()
            self.absent["window"] = why

    def close(self) -> None:
        self.abandon_window(self.absent.get("window", ""))
