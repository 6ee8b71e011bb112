"""What one process notes of its own steps while it is profiled; written to its file now and then.

A step ends where the optimiser has updated the weights; in a program that only infers, where the next batch
is asked for. What is noted of a step takes some ten microseconds.
"""

from __future__ import annotations

import atexit
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imagen_fast.profiling import processor_time, program
from imagen_fast.profiling.delay import delay
from imagen_fast.profiling.phases import Phases
from imagen_fast.profiling.recording import Steps

# Steps that are kept; in a longer run every second, every fourth, ...
_MOST_STEPS = 20_000
# An optimiser that has not stepped while others did so often ends no steps any more.
_FORGOTTEN = 16
# Seconds between writes, and of how many such writes the time may be one.
_WRITE_EVERY = 2.0
_WRITE_SHARE = 1 / 400

_current: Journal | None = None


def current() -> Journal | None:
    """The journal of this process; None where it is not profiled (any more), or was forked."""
    return _current


def open_for(task: program.Task) -> None:
    """Begin the journal of this process; it is written at its end, too."""
    global _current
    close()
    _current = Journal(task)


@contextmanager
def closed() -> Iterator[None]:
    """Nothing is noted meanwhile; the step under way is given up."""
    global _current
    journal, _current = _current, None
    try:
        yield
    finally:
        _current = journal
        if journal is not None:
            journal.forget_step()


def close() -> None:
    global _current
    journal, _current = _current, None
    if journal is not None:
        journal.close()


def _forget() -> None:
    # A forked worker is no training process, and the parent's threads are not there.
    global _current
    _current = None


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Journal:
    def __init__(self, task: program.Task) -> None:
        self.task = task
        rank, world = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        self.steps = Steps(os.getpid(), rank, world, boundary="batch")
        self.phases = Phases(task, world)
        self._thread = threading.main_thread().ident
        self._leader: int | None = None
        self._others = 0
        self._begun: float | None = None  # when the step under way began
        self._data = self._data_cpu = 0.0
        self._images = 0
        self._seen = self._lot = 0
        self._lots = random.Random(0)  # the program's own is not touched
        self._delay = _Delay()
        self._done = threading.Event()
        self._writer = threading.Thread(
            target=self._write_now_and_then, name="imagen-fast-profile", daemon=True
        )
        self._writer.start()

    # What the hooks call.

    def fetch(
        self, source: object, get: Callable[[], Any], cpu: Callable[[], float], workers: int | None
    ) -> Any:
        """The next batch of `source`, which `get` waits for.

        Args:
            cpu: a clock of the processor's time that `get` may spend on preparing the batch itself.
        """
        if threading.get_ident() != self._thread:
            return get()
        if self._leader is None:
            self._end_step()
        if self.phases.replays(source):
            return self.phases.held
        begun, cpu_begun = time.monotonic(), cpu()
        try:
            with self.phases.waiting():
                batch = get()
            self._images += images_in(batch)
            self.phases.hold(source, batch)
            return batch
        finally:
            self._data += time.monotonic() - begun
            self._data_cpu += cpu() - cpu_begun
            if workers is not None:
                self.steps.workers = workers

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While a loader starts its workers, for which the program waits as for a batch."""
        begun, cpu_begun = time.monotonic(), processor_time.of_thread()
        yield
        if threading.get_ident() == self._thread:
            self._data += time.monotonic() - begun
            self._data_cpu += processor_time.of_thread() - cpu_begun

    def updated(self, optimizer: object) -> None:
        """An optimiser has updated its weights; of several, the first ends a step."""
        if self._leader is None:
            # What came before was no training.
            self.steps = Steps(self.steps.pid, self.steps.rank, self.steps.world, workers=self.steps.workers)
            self._thread, self._begun = threading.get_ident(), None
            self._leader = id(optimizer)
        if id(optimizer) != self._leader:
            self._others += 1
            if self._others < _FORGOTTEN:
                return
            self._leader = id(optimizer)
        self._others = 0
        if threading.get_ident() == self._thread:
            self._end_step()

    def step(self, images: int = 0) -> None:
        """Where the program itself says that a step has ended."""
        self._images += images
        self.updated(self)

    def forget_step(self) -> None:
        """The step under way is none of the program's: the next begins where this one ends."""
        self._begun = None

    def _end_step(self) -> None:
        now = time.monotonic()
        if self._begun is not None:
            if self.phases.undisturbed:
                self._keep(now)
            self.phases.step_ended(now - self._begun)
        self._data = self._data_cpu = 0.0
        self._images = 0
        # What the profiler did just now is nobody's time.
        self._begun = time.monotonic()

    def _keep(self, now: float) -> None:
        self._seen += 1
        if self._seen == 1:
            self._delay = _Delay(threading.get_native_id())
        steps = self.steps
        # One of each group, by lot: what happens every so many steps is not always met, or never.
        if self._seen % steps.every == 0:
            self._lot = self._lots.randrange(steps.every)
        if self._seen % steps.every != self._lot:
            return
        assert self._begun is not None
        for kept, value in (
            (steps.end, now - self.task.start),
            (steps.seconds, now - self._begun),
            (steps.data, self._data),
            (steps.data_cpu, self._data_cpu),
        ):
            kept.append(round(value, 7))
        steps.images.append(self._images)
        if len(steps.end) > _MOST_STEPS:
            steps.every *= 2
            lots = [self._lots.randrange(2) for _ in range(len(steps.end) // 2)]
            for name in ("end", "seconds", "data", "data_cpu", "images"):
                of_all = getattr(steps, name)
                setattr(steps, name, [of_all[2 * pair + lot] for pair, lot in enumerate(lots)])

    # The file.

    def write(self) -> None:
        if not self.steps.end and self.phases.window is None:
            return  # a process that trains nothing
        self.steps.delayed = self._delay.share()
        made = program.part(
            self.steps, self.phases.window, self.phases.ceilings, _machine(), dict(self.phases.absent)
        )
        with suppress(OSError):  # a full disk must not end the program
            program.write(self.task, made)

    def close(self) -> None:
        self._done.set()
        self.phases.close()
        self._writer.join()
        self.write()

    def _write_now_and_then(self) -> None:
        wait = _WRITE_EVERY
        while not self._done.wait(wait):
            begun = time.thread_time()
            with suppress(RuntimeError):  # a list grew while it was being copied: next time
                self.write()
            wait = max(_WRITE_EVERY, (time.thread_time() - begun) / _WRITE_SHARE)


class _Delay:
    """How much of the time since it was made a thread of this process waited for a processor."""

    def __init__(self, thread: int = 0) -> None:
        self._file = Path(f"/proc/self/task/{thread}/schedstat")
        self._begun, self._before = time.monotonic(), delay(self._file)

    def share(self) -> float | None:
        now = delay(self._file)
        if now is None or self._before is None:
            return None
        return round((now - self._before) / max(time.monotonic() - self._begun, 1e-9), 4)


def images_in(batch: Any) -> int:
    """The length of the first tensor that looks like images, else of the first tensor; 0 without any."""
    sizes = [tuple(tensor.shape) for tensor in _tensors(batch, 4) if len(tensor.shape)]
    return next((size[0] for size in sizes if len(size) >= 3), sizes[0][0] if sizes else 0)


def _tensors(value: Any, deep: int) -> list[Any]:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [value]
    if deep == 0 or isinstance(value, str | bytes):
        return []
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value[:8])
    else:
        inner = list(getattr(value, "__dict__", {}).values())
    return [tensor for entry in inner for tensor in _tensors(entry, deep - 1)]


def _machine() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return {"python": platform.python_version()}
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_initialized() else None,
    }
