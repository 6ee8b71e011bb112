"""Contenders in processes of their own, as their users run them.

In one process, what one contender frees is trimmed off the heap, and the next waits until it is faulted in
again. Here each has a heap of its own; only one works at a time, the others wait for a message. A worker
stops at the end of its pipe too, so that none outlives its parent.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Self

import torch

from imagen_fast.benchmarks.contender import Contender
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Failed, Sample, sampler

# Seconds that a process has to tidy up what its libraries hold (the compiler's helpers, semaphores).
_PATIENCE = 3.0

Contenders = Callable[[], Iterable[Contender]]


def start_method(preload: Sequence[str]) -> BaseContext:
    """How workers begin: forked from a server that has imported `preload`, or bare where there is no fork.

    The server imports and computes nothing: a fork has no use for threads that stay behind.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    return context


class _Process:
    """A process that does `job(pipe, contenders)`, in as many threads as this one."""

    def __init__(self, start: BaseContext, job: Callable[..., None], contenders: Contenders) -> None:
        self.pipe, theirs = start.Pipe()
        arguments = (theirs, job, contenders, torch.get_num_threads())
        # A daemon, so that Python ends it even where nobody could call `close`.
        self._process: Any = start.Process(target=_run, args=arguments, daemon=True)
        with theirs:
            self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def close(self) -> None:
        """End the process: by the end of its pipe, or where it does not listen, at once."""
        self.pipe.close()
        self._process.join(_PATIENCE)
        self._process.terminate()
        self._process.join()

    def ask(self, question: Any = None) -> Any:
        """What it answers.

        Raises:
            Failed: it answered with an error, or died.
        """
        with suppress(ConnectionError):  # how it ended is told below
            self.pipe.send(question)
        return self.hear()

    def hear(self) -> Any:
        # The pipe alone would not do: children that a dead worker leaves may hold it open.
        ready = wait([self.pipe, self._process.sentinel])
        with suppress(EOFError, ConnectionError):
            if self.pipe in ready:
                heard = self.pipe.recv()
                if isinstance(heard, Failed):
                    raise heard
                return heard
        self._process.join()
        raise Failed(_how_it_ended(self._process.exitcode))


class Checks:
    """What the contenders' checks say, from a process that goes before anything is timed.

    One process makes them all, so that they share what they are held against; where a check kills it,
    another makes the next.
    """

    def __init__(self, start: BaseContext, contenders: Contenders) -> None:
        self._begin = partial(_Process, start, _check, contenders)
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()

    def verdict(self, number: int) -> Verdict:
        """On the contender of this number.

        Raises:
            Failed: it could not be prepared, or the process died.
        """
        if self._process is not None and not self._process.is_alive():
            self._process.close()
            self._process = None
        self._process = self._process or self._begin()
        return self._process.ask(number)


class Worker(_Process):
    """A process that builds one contender, and calls it when asked.

    Args:
        contenders: gives the same contenders in every process; can be pickled.
        number: which of them this is.
        cold: see `time_on_cuda`.
    """

    def __init__(
        self, start: BaseContext, contenders: Contenders, number: int, device: torch.device, cold: bool
    ) -> None:
        super().__init__(start, partial(_time, device, cold, number), contenders)

    def ready(self) -> dict[str, Any]:
        """Wait until it is built; to be called once, first.

        Returns:
            What was built tells of itself: see `Contender`.

        Raises:
            Failed: it could not be built, or its process died.
        """
        return self.hear()

    def sample(self) -> Sample:
        """One timed call.

        Raises:
            Failed: the call raised an error, or its process died.
        """
        return self.ask()


def _how_it_ended(exitcode: int) -> str:
    if exitcode >= 0:
        return f"its process ended with exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"its process was killed by {name}{', perhaps for lack of memory' if name == 'SIGKILL' else ''}"


def _run(pipe: Connection, job: Callable[..., None], contenders: Contenders, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the parent sees to it
    torch.set_num_threads(threads)
    with suppress(BrokenPipeError, EOFError):  # nobody is left to ask or to hear
        try:
            job(pipe, contenders)
        except EOFError:
            raise
        except Exception as error:
            pipe.send(Failed.because(error))


def _check(pipe: Connection, contenders: Contenders) -> None:
    """The verdict on a contender whenever its number comes."""
    known: list[Contender] = []
    while True:
        number = pipe.recv()
        try:
            known = known or list(contenders())
            pipe.send(known[number].prepare()[1])
        except Exception as error:
            pipe.send(Failed.because(error))
        gc.collect()  # the model that was checked


def _time(device: torch.device, cold: bool, number: int, pipe: Connection, contenders: Contenders) -> None:
    """A sample whenever a message comes."""
    contender = next(islice(contenders(), number, None))
    call = _built(contender)
    take, told = sampler(call, device, cold, alone=True), contender.told(call)
    del contender
    gc.collect()  # what it was made from
    pipe.send(told)
    while True:
        pipe.recv()
        pipe.send(take())


def _built(contender: Contender) -> Call:
    if contender.build is None:
        raise TypeError("a contender that lives apart needs a build")
    return contender.build()
