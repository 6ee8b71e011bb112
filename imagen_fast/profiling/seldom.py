"""What is dear to read is read seldom."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Seldom:
    """Calls `function` so seldom that it takes no more than `share` of the time; in between: the last answer.

    Args:
        cost: the clock that its cost is read from: by default the processor time of the calling thread;
            `time.perf_counter` for what makes the thread wait.
    """

    def __init__(
        self, function: Callable[..., Any], share: float, cost: Callable[[], float] = time.thread_time
    ) -> None:
        self._function, self._share, self._cost = function, share, cost
        self._due = 0.0
        self._last: Any = None

    def __call__(self, *args: Any) -> Any:
        if time.monotonic() >= self._due:
            before = self._cost()
            self._last = self._function(*args)
            self._due = time.monotonic() + (self._cost() - before) / self._share
        return self._last
