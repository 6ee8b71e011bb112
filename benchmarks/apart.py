"""Contenders in processes of their own, as their users run them.

In one process, what one contender frees is trimmed off the heap, and the next waits until it is faulted in
again. Here each has a heap of its own; only one works at a time, the others wait for a message. A worker
stops at the end of its pipe too, so that none outlives its parent.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import torch

from imagen_fast.benchmarks import resident
from imagen_fast.benchmarks.contender import Contender
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Failed, Sample, sampler

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


class Worker:
    """A process with one contender in it, which is built and checked there.

    Args:
        contenders: gives the same contenders in every process; can be pickled.
        number: which of them this is.
        cold: see `time_on_cuda`.
    """

    def __init__(
        self, start: BaseContext, contenders: Contenders, number: int, device: torch.device, cold: bool
    ) -> None:
        self._pipe, theirs = start.Pipe()
        arguments = (theirs, contenders, number, device, cold, torch.get_num_threads())
        # A daemon, so that Python ends it even where nobody could call `close`.
        self._process: Any = start.Process(target=_serve, args=arguments, daemon=True)
        with theirs:
            self._process.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verdict(self) -> Verdict:
        """To be asked once, first.

        Raises:
            Failed: it could not be prepared, or its process died.
        """
        return self._hear()

    def sample(self) -> Sample:
        """One timed call.

        Raises:
            Failed: the call raised an error, or its process died.
        """
        with suppress(ConnectionError):  # how it ended is told below
            self._pipe.send(None)
        return self._hear()

    def close(self) -> None:
        """End the process, at once: it has nothing to save."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def _hear(self) -> Any:
        # The pipe alone would not do: children that a dead worker leaves may hold it open.
        ready = wait([self._pipe, self._process.sentinel])
        with suppress(EOFError, ConnectionError):
            if self._pipe in ready:
                heard = self._pipe.recv()
                if isinstance(heard, Failed):
                    raise heard
                return heard
        self._process.join()
        raise Failed(_how_it_ended(self._process.exitcode))


def _how_it_ended(exitcode: int) -> str:
    if exitcode >= 0:
        return f"its process ended with exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"its process was killed by {name}{', perhaps for lack of memory' if name == 'SIGKILL' else ''}"


def _serve(
    pipe: Connection, contenders: Contenders, number: int, device: torch.device, cold: bool, threads: int
) -> None:
    """The life of a worker: the verdict, then a sample whenever a message comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the parent sees to it
    torch.set_num_threads(threads)
    with suppress(BrokenPipeError):
        try:
            call, verdict = _prepare(contenders, number)
            resident.release()  # the checks need twice what a step does, and all wait beside each other
            pipe.send(verdict)
            take = sampler(call, device, cold, alone=True)
            while True:
                pipe.recv()
                pipe.send(take())
        except Exception as error:  # where it is the pipe's end, nobody is left to hear of it
            pipe.send(Failed.because(error))


def _prepare(contenders: Contenders, number: int) -> tuple[Call, Verdict]:
    """In a function of its own: the other contenders, and what the checks made, go with it."""
    return next(islice(contenders(), number, None)).prepare()
