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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from imagen_fast.profiling import processor_time
from imagen_fast.profiling.delay import delay
from imagen_fast.profiling.phases import Phases, next_of
from imagen_fast.profiling.recording import Steps
from imagen_fast.profiling.task import Task, write_part

# Steps that are kept; of a longer run one of two, one of four, ...
_MOST_STEPS = 20_000
# An optimiser that has not stepped while another did so often ends no steps any more.
_FORGOTTEN = 16
# Seconds between writes, and of how many such writes the time may be one.
_WRITE_EVERY = 2.0
_WRITE_SHARE = 1 / 400

# The journal of this process, after those that wait until it is closed.
_open: list[Journal] = []
# In a forked process: what its parent was asked for.
_of_parent: Task | None = None


def current() -> Journal | None:
    """The journal of this process; None where it is not profiled (any more), or was forked."""
    return _open[-1] if _open else None


def open_for(task: Task) -> None:
    """Begin a journal of this process; one that is open waits until this one is closed."""
    _open.append(Journal(task))


def close() -> None:
    """End the journal that was opened last; the one before it goes on."""
    if _open:
        _open.pop().close()
        if _open:
            _open[-1].forget_step()


def in_a_fork() -> Journal | None:
    """In a forked process that turns out to train: a journal of its own, where its parent has one."""
    global _of_parent
    task, _of_parent = _of_parent, None
    if task is not None:
        open_for(task)
        # It ends without what `atexit` does.
        from multiprocessing.util import Finalize

        Finalize(None, _close_all, exitpriority=0)
    return current()


@contextmanager
def closed() -> Iterator[None]:
    """Nothing is noted meanwhile; the step under way is given up."""
    kept = _open[:]
    _open.clear()
    try:
        yield
    finally:
        _open[:] = kept
        for journal in kept:
            journal.forget_step()


def guarded(note: Callable[..., Any], *given: Any) -> Any:
    """What `note` returns. A failure of ours must not become the program's: nothing more is noted then."""
    try:
        return note(*given)
    except Exception as error:
        give_up(error)
        return None


def give_up(error: Exception) -> None:
    journal = current()
    if journal is None:
        return
    why = f"the profiler failed in the program: {type(error).__name__}: {error}".splitlines()[0]
    print(f"imagen-fast profile: {why}", file=sys.stderr)
    with suppress(Exception):
        journal.phases.failed(why)
        close()


def _before_fork() -> None:
    journal = current()
    if journal is not None:
        guarded(journal.before_fork)


def _in_the_child() -> None:
    # The parent's threads are not there, and most such processes only load data.
    global _of_parent
    _of_parent = _open[-1].task if _open else None
    _open.clear()


def _close_all() -> None:
    while _open:
        guarded(close)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_the_child)


class _Step(NamedTuple):
    end: float
    seconds: float
    data: float
    data_cpu: float
    images: int


class Journal:
    """What hooks note of a process.

    They run in the middle of its steps, with little of it in a processor's caches: what can be done when the
    file is written is done there.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.steps = Steps(os.getpid(), _number("RANK", 0), _number("WORLD_SIZE", 1), boundary="batch")
        self.phases = Phases(task)
        self._kept: list[_Step] = []
        self._thread = threading.main_thread().ident
        self._leader: int | None = None
        self._others: Counter[int] = Counter()
        self._begun: float | None = None  # when the step under way began
        self._data = self._data_cpu = 0.0
        self._images = 0
        self._source: object = None  # of those images
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
            return next_of(source, get)
        if self._leader is None:
            guarded(self._end_step, False)
        phases = self.phases
        ahead = guarded(phases.ahead, source, get)
        if ahead is not None:
            # Where batches were drawn ahead, that was nobody's time.
            self._begun = ahead.drawn or self._begun
            batch = ahead.take()
            guarded(self._came, source, batch)
            return batch
        waiting = guarded(phases.waiting)
        begun, cpu_begun = time.monotonic(), cpu()
        try:
            if waiting is None:
                batch = get()
            else:
                with waiting:
                    batch = get()
        finally:
            self._data += time.monotonic() - begun
            self._data_cpu += cpu() - cpu_begun
            if workers is not None:
                self.steps.workers = workers
        guarded(self._came, source, batch)
        return batch

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
        in_backward = _in_backward()
        if self._leader is None:
            self._begin_training(optimizer, in_backward)
        if id(optimizer) != self._leader:
            self._others[id(optimizer)] += 1
            if self._others[id(optimizer)] < _FORGOTTEN:
                return
            self._leader = id(optimizer)
        if self._others:
            self._others.clear()
        # On a GPU a backward pass runs in a thread of its own.
        if in_backward or threading.get_ident() == self._thread:
            self._end_step(in_backward)

    def step(self, images: int = 0) -> None:
        """Where the program itself says that a step has ended."""
        self._images += images
        self.updated(self)

    def forget_step(self) -> None:
        """The step under way is none of the program's: the next begins where this one ends."""
        self._begun = None

    def before_fork(self) -> None:
        if threading.get_ident() == self._thread:
            self.phases.postpone_window()

    def _begin_training(self, optimizer: object, in_backward: bool) -> None:
        # What came before was no training.
        rank, world = _place() or (self.steps.rank, self.steps.world)
        self.steps = Steps(self.steps.pid, rank, world, workers=self.steps.workers)
        self._kept, self._seen, self._begun = [], 0, None
        self._leader = id(optimizer)
        if not in_backward:
            self._thread = threading.get_ident()

    def _came(self, source: object, batch: Any) -> None:
        if source is not self._source:
            # A step learns from what came last; a validation before it is none of its images.
            self._source, self._images = source, 0
        self._images += images_in(batch)
        if not self.phases.steady:
            self.phases.came(source)

    def _end_step(self, in_backward: bool) -> None:
        now = time.monotonic()
        if self._begun is not None:
            if self.phases.undisturbed:
                self._keep(now, now - self._begun)
            if not self.phases.steady:
                self.phases.step_ended(now - self._begun, self.steps.world, in_backward)
        self._data = self._data_cpu = 0.0
        self._images = 0
        # What the profiler did just now is nobody's time.
        self._begun = time.monotonic()

    def _keep(self, now: float, seconds: float) -> None:
        self._seen += 1
        if self._seen == 1:
            self._delay = _Delay(threading.get_native_id())
        if (every := self.steps.every) > 1:
            # One of each group, by lot: what happens every so many steps is not always met, or never.
            if self._seen % every == 0:
                self._lot = self._lots.randrange(every)
            if self._seen % every != self._lot:
                return
        self._kept.append(_Step(now - self.task.start, seconds, self._data, self._data_cpu, self._images))
        if len(self._kept) > _MOST_STEPS:
            self.steps.every *= 2
            pairs = len(self._kept) // 2
            self._kept = [self._kept[2 * pair + self._lots.randrange(2)] for pair in range(pairs)]

    # The file.

    def write(self) -> None:
        kept = self._kept[:]  # at once: the program goes on meanwhile
        if not kept and self.phases.window is None and not self.phases.broken:
            return  # a process that trains nothing
        steps = self.steps
        steps.delayed = self._delay.share()
        if kept:
            *seconds, images = zip(*kept, strict=True)
            steps.end, steps.seconds, steps.data, steps.data_cpu = (
                [round(value, 7) for value in values] for values in seconds
            )
            steps.images = list(images)
        phases = self.phases
        with suppress(OSError):  # a full disk must not end the program
            write_part(self.task, steps, phases.window, phases.ceilings, _machine(), dict(phases.absent))

    def close(self) -> None:
        self._done.set()
        self.phases.close()
        self._writer.join()
        self.write()

    def _write_now_and_then(self) -> None:
        wait = _WRITE_EVERY
        while not self._done.wait(wait):
            begun = time.thread_time()
            with suppress(RuntimeError):  # a dictionary grew while it was being copied: next time
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
    """The length of the first tensor that looks like images, else of the first tensor; 0 without any.

    Images of several sizes come as a list, each [C, H, W].
    """
    entries = batch.values() if isinstance(batch, dict) else batch
    for entry in entries if isinstance(batch, dict | list | tuple) else ():
        # Nearly always: nothing but tensors, and the first that could be images is.
        dimensions = getattr(entry, "ndim", 3)
        if dimensions > 3 and not getattr(entry, "is_nested", False):
            return int(entry.shape[0])
        if dimensions == 3:
            break
    shapes = [tuple(tensor.shape) for tensor in _tensors(batch, 4) if not getattr(tensor, "is_nested", False)]
    apart = [shape for shape in shapes if len(shape) == 3 and shape[0] in (1, 3, 4)]
    if len(apart) > 1 and not any(len(shape) > 3 for shape in shapes):
        return len(apart)
    sizes = [shape for shape in shapes if shape]
    return next((size[0] for size in sizes if len(size) >= 3), sizes[0][0] if sizes else 0)


_MOST_ENTRIES = 256  # of a list of images


def _tensors(value: Any, deep: int) -> list[Any]:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [value]
    if deep == 0 or isinstance(value, str | bytes):
        return []
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value[:_MOST_ENTRIES])
    else:
        inner = list(getattr(value, "__dict__", {}).values())
    return [tensor for entry in inner for tensor in _tensors(entry, deep - 1)]


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else default


def _place() -> tuple[int, int] | None:
    """Rank and number of processes, where torch.distributed is at work."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _in_backward() -> bool:
    torch = sys.modules.get("torch")
    task: Any = getattr(getattr(torch, "_C", None), "_current_graph_task_id", None)
    return task is not None and task() != -1


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
