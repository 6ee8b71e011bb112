"""A thread that samples the machine and the GPUs, for at most a hundredth of one core."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from imagen_fast.profiling.bounded import Bounded, Key
from imagen_fast.profiling.host import Host
from imagen_fast.profiling.nvml import Gpus
from imagen_fast.profiling.recording import Samples, Series

INTERVAL = 0.5
# Of one core. The aim is below the hundredth that is promised: a cost is known only when it has been paid.
_SHARE = 0.006
# A first sample loads code and fills caches; from so many on a mean tells what one costs.
_WARM = 8
_HOST = -1


class Sampler:
    """Samples from `begin` to `end`; `samples` can be asked at any time in between.

    Args:
        root: the program's first process; this very process for a part of the own program.
        start: time.monotonic() of the recording's start.
        interval: seconds between samples; None for `INTERVAL`, or more where a sample costs so much that it
            would take more than its share of a core.
        training: the processes that are known to train.
        environment: the program's.
    """

    def __init__(
        self,
        root: int,
        start: float,
        interval: float | None = None,
        training: Callable[[], Iterable[int]] = tuple,
        environment: Mapping[str, str] = os.environ,
        gpus: Gpus | None = None,
    ) -> None:
        self._start = start
        self._fixed = interval is not None
        self._asked = self._interval = INTERVAL if interval is None else interval
        self._host = Host(root, training)
        self._gpus = Gpus(environment) if gpus is None else gpus
        self._kept = Bounded()
        self._last = 0.0
        self._costs: list[float] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagen-fast-profile", daemon=True)

    def begin(self) -> None:
        """Take the readings from which rates begin, and start the thread."""
        self._read()
        self._thread.start()

    def end(self) -> None:
        """Stop the thread after one more sample, so that the last moments count too."""
        self._over.set()
        self._thread.join()
        self._sample(last=True)
        self._gpus.close()

    def samples(self) -> Samples:
        """All of them so far."""
        with self._lock:
            times, columns = self._kept.columns()
            coarser, cost = self._kept.coarser, self._cost()
        made = Samples(self._interval * coarser, times, absent=self._host.absent | self._gpus.absent)
        by_place: dict[int, Series] = {}
        for (place, name), values in columns.items():
            by_place.setdefault(place, {})[name] = values
        made.host = by_place.get(_HOST, {})
        for name in [name for name, values in made.host.items() if not any(v is not None for v in values)]:
            del made.host[name]
            made.absent[name] = _NEVER.get(name, "it was not told so far")
        made.gpus = [
            device.recorded(by_place.get(place, {})) for place, device in enumerate(self._gpus.devices)
        ]
        if self._interval > self._asked:
            made.absent["interval"] = (
                f"a sample costs {cost * 1e3:.1f} ms of a processor: "
                f"they are taken every {self._interval:g} s, not every {self._asked:g} s"
            )
        return made

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._over.wait(max(0.0, due - time.monotonic())):
            before = time.thread_time()
            self._sample()
            self._costs = [*self._costs[-31:], time.thread_time() - before]
            self._spare()
            due = after(due, self._interval, time.monotonic())

    def _sample(self, last: bool = False) -> None:
        values = self._read()
        now = time.monotonic()
        with self._lock:
            self._kept.add(now - self._start, max(now - self._last, 1e-6), values, last)
        self._last = now

    def _read(self) -> dict[Key, float | None]:
        values: dict[Key, float | None] = {(_HOST, name): value for name, value in self._host.read().items()}
        for place, read in enumerate(self._gpus.read(self._host.pids)):
            values |= {(place, name): value for name, value in read.items()}
        if not self._last:
            self._last = time.monotonic()
        return values

    def _cost(self) -> float:
        """Processor seconds of one sample."""
        return sum(self._costs) / len(self._costs) if self._costs else 0.0

    def _spare(self) -> None:
        """Sample more seldom where a sample costs more than its share."""
        if not self._fixed and len(self._costs) >= _WARM and self._cost() > _SHARE * self._interval:
            self._interval *= 2


def after(due: float, interval: float, now: float) -> float:
    """When the next sample is due: from when the last was, lest they drift; without those missed."""
    return due + interval * max(1.0, math.ceil((now - due) / interval))


_NEVER = {
    "main_cpu": "no process of the program said that it trains",
    "workers_cpu": "no process of the program said that it trains",
    "workers_delayed": "no process of the program said that it trains",
}
