"""What the profiler does to a program besides watching it: a window of every operation, and ceilings.

Both happen between two steps, in the thread that trains, once in a run.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from weakref import WeakKeyDictionary

from imagen_fast.profiling.recording import Ceilings, Window
from imagen_fast.profiling.task import Task

# Before these many steps a program warms up: it compiles, fills caches and its queue of batches.
_WARM_STEPS = 10
# Unless steps are slow: then this many, and seconds, do.
_WARM_SLOW_STEPS = 3
_WARM_SECONDS = 5.0
# Seconds after which a window is closed at the next step.
_LONGEST_WINDOW = 20.0
# Windows that a fork may close, after which none is opened any more.
_MOST_TRIES = 4
# Steps with batches that lie ready, and so many as they come; and so many until a loader that runs ahead has
# used up what it got ready meanwhile.
_BLOCK = 8
_ROUNDS = 2
_DRAIN = 32
# Of batches that are drawn ahead, all together.
_MOST_BYTES = 2**30


class Phase(Enum):
    WARM = auto()
    WINDOW = auto()
    AS_IS = auto()
    IN_MEMORY = auto()
    DRAIN = auto()
    STEADY = auto()


@dataclass
class Ahead:
    """Batches that were drawn before they are needed, and the end or the error that came after them.

    Args:
        drawn: when that was done, for the first batch that is taken; None for the others.
        taken: whether any was.
    """

    batches: deque[Any] = field(default_factory=deque)
    after: Exception | None = None
    drawn: float | None = None
    taken: bool = False

    def draw(self, get: Callable[[], Any], count: int) -> None:
        size = 0
        while len(self.batches) < count and size < _MOST_BYTES:
            try:
                self.batches.append(get())
            except Exception as error:  # it belongs where the batch would have been
                self.after = error
                break
            with suppress(Exception):  # of a kind that does not tell
                size += _bytes_of(self.batches[-1])
        self.drawn = time.monotonic()

    def take(self) -> Any:
        """The next batch; what came after the last is raised where that would have been."""
        self.drawn = None
        if self.batches:
            self.taken = True
            return self.batches.popleft()
        error, self.after = self.after, None
        assert error is not None
        raise error

    @property
    def empty(self) -> bool:
        return not self.batches and self.after is None


# By what they came from: they are the program's, however the recording ends.
_drawn: WeakKeyDictionary[Any, Ahead] = WeakKeyDictionary()


def next_of(source: object, get: Callable[[], Any]) -> Any:
    """The next batch of `source` where nothing is recorded: one drawn ahead, else what `get` gives."""
    ahead = _drawn.get(source)
    return get() if ahead is None or ahead.empty else ahead.take()


def begins_anew(source: object) -> None:
    """A loader may use one iterator again: what was left of its last epoch is gone, as it would have been."""
    _drawn.pop(source, None)


class Phases:
    """The order of them: warm, window, ceilings where they are asked for, and steady from there."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.window: Window | None = None
        self.ceilings: Ceilings | None = None
        self.broken = False
        # Until they are there, why they are not.
        too_short = "the program ended before that"
        self.absent = {
            "window": too_short if task.window else "it was not asked for",
            "ceilings": too_short if task.ceilings else "they were not asked for (--ceilings)",
        }
        self._phase = Phase.WARM
        self.steady = False  # nothing is done to the program any more
        # Whether the step that ends now is as the program runs by itself.
        self.undisturbed = True
        self._steps = 0  # of this phase
        self._entered = time.monotonic()
        self._measured: dict[Phase, list[float]] = {Phase.AS_IS: [], Phase.IN_MEMORY: []}
        self._rounds = self._tries = 0
        self._fetched = 0  # batches of this step
        self._a_step = 1  # batches of a step
        self._source: object = None  # of the last batch
        self._trains: object = None  # the source that steps learn from
        self._ahead: Ahead | None = None
        self._profiler: Any = None
        self._theirs = False  # the program has a profiler of its own

    def waiting(self) -> AbstractContextManager[Any] | None:
        """To be held while the program waits for input, so that a window that is open shows it."""
        return None if self._profiler is None else self._profiler.data()

    # Batches that lie ready.

    def came(self, source: object) -> None:
        self._fetched += 1
        self._source = source

    def ahead(self, source: object, get: Callable[[], Any]) -> Ahead | None:
        """What to take the next batch from, in place of waiting for it; None where it is to be waited for.

        The program gets the same batches in the same order, and as many steps: they are only drawn earlier.
        A loop over other data (a validation, say) is left alone.
        """
        if self.steady and not _drawn:
            return None
        ahead = _drawn.get(source)
        if ahead is not None and not ahead.empty:
            return ahead
        if self._phase is not Phase.IN_MEMORY or self._steps or source is not self._trains:
            return None
        self._ahead = _drawn[source] = Ahead()
        self._ahead.draw(get, _BLOCK * self._a_step)
        return self._ahead

    # The order.

    def step_ended(self, seconds: float, world: int, in_backward: bool) -> None:
        if self._phase is Phase.WARM and not self._steps:
            self._entered = time.monotonic()
        self._steps += 1
        self._trains = self._source
        self._a_step, self._fetched = max(self._fetched, 1), 0
        if self._phase is Phase.WARM and self._is_warm(world):
            self._begin_window(in_backward) if self.task.window else self._begin_ceilings()
        elif self._phase is Phase.WINDOW and self._window_is_full():
            self._end_window()
            self._begin_ceilings()
        elif self._phase is Phase.AS_IS:
            self._measured[self._phase].append(seconds)
            if self._steps >= _BLOCK:
                self._begin_in_memory()
        elif self._phase is Phase.IN_MEMORY:
            self._step_in_memory(seconds)
        elif self._phase is Phase.DRAIN and self._steps >= _DRAIN:
            self._enter(Phase.AS_IS)

    def _enter(self, phase: Phase) -> None:
        self._phase, self._steps, self._entered = phase, 0, time.monotonic()
        self.steady = phase is Phase.STEADY
        self.undisturbed = phase in (Phase.WARM, Phase.AS_IS, Phase.STEADY)

    def _is_warm(self, world: int) -> bool:
        if self._steps >= _WARM_STEPS:
            return True
        # By steps alone where several processes have to do the same at the same time.
        slow = world == 1 and time.monotonic() - self._entered >= _WARM_SECONDS
        return slow and self._steps >= _WARM_SLOW_STEPS

    def _begin_ceilings(self) -> None:
        self._enter(Phase.AS_IS if self.task.ceilings else Phase.STEADY)

    def _begin_in_memory(self) -> None:
        if self._trains is None:
            self.absent["ceilings"] = "no batch was seen to come from a loader that is watched"
            self._enter(Phase.STEADY)
        else:
            self._ahead = None
            self._enter(Phase.IN_MEMORY)

    def _step_in_memory(self, seconds: float) -> None:
        """One whose batches lay ready; the last that did ends the round, as the end of an epoch may."""
        if self._ahead is not None and self._ahead.taken:
            self._measured[self._phase].append(seconds)
            if self._ahead.batches:
                return
        self._rounds += 1
        if self._rounds < _ROUNDS:
            self._enter(Phase.DRAIN)
            return
        as_is, in_memory = self._measured[Phase.AS_IS], self._measured[Phase.IN_MEMORY]
        if in_memory:
            means = statistics.fmean(as_is), statistics.fmean(in_memory)
            self.ceilings = Ceilings(means[0], in_memory=means[1], rounds=self._rounds)
        else:
            self.absent["ceilings"] = "no batch could be drawn ahead"
        self._enter(Phase.STEADY)

    # The window.

    def _begin_window(self, in_backward: bool) -> None:
        if self._theirs:
            self.absent["window"] = "the program uses torch.profiler itself"
        elif in_backward:
            self.absent["window"] = "the optimisers step inside the backward pass, which no window can cut"
        else:
            from imagen_fast.profiling.window import Profiler  # which needs PyTorch

            try:
                self._profiler = Profiler()
                self._enter(Phase.WINDOW)
                return
            except Exception as error:  # what it needs is PyTorch's affair; the program must go on
                self.absent["window"] = f"{error}"
        self._begin_ceilings()

    def _window_is_full(self) -> bool:
        full = self._steps >= self.task.window
        return full or time.monotonic() - self._entered >= _LONGEST_WINDOW

    def _end_window(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:  # it was abandoned meanwhile
            return
        try:
            self.window = profiler.finish(self._steps)
        except Exception as error:  # as above
            self.absent["window"] = f"torch.profiler failed: {type(error).__name__}: {error}"

    def program_profiles(self) -> None:
        """The program begins a torch.profiler of its own, of which a process can have one."""
        self._theirs = True
        self._abandon_window("the program uses torch.profiler itself")

    def postpone_window(self) -> None:
        """Before a fork: a child would record as well, without end."""
        if self._profiler is None:
            return
        self._abandon_window("each time the program started other processes meanwhile")
        self._tries += 1
        self._enter(Phase.WARM if self._tries < _MOST_TRIES else Phase.STEADY)

    def _abandon_window(self, why: str) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            self.absent["window"] = why
            profiler.drop()

    def failed(self, why: str) -> None:
        """The profiler itself did: what it has stays, and the rest says why it is not there."""
        self.broken = True
        self.absent |= dict.fromkeys(("steps", "window", "ceilings"), why)

    def close(self) -> None:
        self._abandon_window(self.absent["window"])


def _bytes_of(batch: Any) -> int:
    """Of the tensors in lists, tuples and dictionaries; what is elsewhere counts for none."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return sum(map(_bytes_of, batch))
    return int(getattr(batch, "nbytes", 0))
