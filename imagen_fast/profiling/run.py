"""Run any program beside a sampler, as if it ran alone: its terminal, signals and status are its own."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_fast.errors import ImagenFastError
from imagen_fast.profiling import host, program
from imagen_fast.profiling.program import Collected
from imagen_fast.profiling.recording import Recording, Samples
from imagen_fast.profiling.sampler import Sampler
from imagen_fast.profiling.seldom import Seldom

WINDOW = 4
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell reports them
# Reading what the program has written so far, to learn which of its processes train.
_SHARE_FOR_COLLECTING = 0.001

# What the terminal sends to the program as well.
_FROM_TERMINAL = ("SIGINT", "SIGQUIT", "SIGTSTP")
_FORWARDED = (*_FROM_TERMINAL, "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT")


class CannotStart(ImagenFastError):
    """A command that cannot be run.

    Attributes:
        status: as a shell would end with.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Options:
    """Args:
    interval: seconds between samples; None for as many as cost next to nothing.
    window: steps of which every operation is recorded.
    ceilings: measure steps with batches that lie in memory, drawn a little earlier.
    """

    interval: float | None = None
    window: int = WINDOW
    ceilings: bool = False


Beside = Callable[[Callable[[], Recording]], AbstractContextManager[Any]]
"""What goes on while the program runs; it is given a function that tells what is recorded so far."""


def run(command: list[str], options: Options, beside: Beside = lambda _: nullcontext()) -> Recording:
    """Run a program to its end.

    Raises:
        CannotStart: there is no such program, or it cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="imagen-fast-profile-", ignore_cleanup_errors=True) as place:
        folder, start, started = Path(place), time.monotonic(), now()
        wanted = program.environment(folder, start, window=options.window, ceilings=options.ceilings)
        environment = os.environ | wanted
        with _passing_signals() as pass_to:
            child = _started(command, environment)
            pass_to(child.pid)
            training = Seldom(
                lambda: [steps.pid for steps in program.collect(folder).steps], _SHARE_FOR_COLLECTING
            )
            sampler = Sampler(child.pid, start, options.interval, training, environment)
            sampler.begin()

            def so_far() -> Recording:
                passed = time.monotonic() - start
                return assemble(command, started, passed, sampler.samples(), program.collect(folder))

            with beside(so_far):
                _wait(child)
            # Not waited for yet: its counts can still be read.
            sampler.end()
            status = child.wait()
            seconds = time.monotonic() - start
        collected = program.collect(folder)
    code = 128 - status if status < 0 else status
    made = assemble(command, started, seconds, sampler.samples(), collected)
    made.exit_code = code
    return made


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def assemble(
    command: list[str], started: str, seconds: float, samples: Samples, collected: Collected
) -> Recording:
    """A recording from what was seen from outside and what the program noted itself."""
    return Recording(
        command=command,
        started=started,
        seconds=round(seconds, 4),
        machine=host.facts() | collected.machine,
        samples=samples,
        steps=collected.steps,
        window=collected.window,
        ceilings=collected.ceilings,
        absent=collected.absent,
    )


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # Of a path that is there the system says itself what is wrong with it.
    if shutil.which(command[0]) is None and not (os.sep in command[0] and Path(command[0]).exists()):
        raise CannotStart(f"the command {command[0]!r} was not found", _NOT_FOUND)
    try:
        return subprocess.Popen(command, env=environment)
    except OSError as error:
        raise CannotStart(
            f"the command {command[0]!r} cannot be run: {error.strerror or error}", _NOT_EXECUTABLE
        ) from error


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Until the program has ended; where that is possible without forgetting what it used."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    else:
        child.wait()


@contextmanager
def _passing_signals() -> Iterator[Callable[[int], None]]:
    """Signals go to the program, and this process lives on to write what was recorded.

    Gives a function that takes the program's process, once there is one.
    """
    target: list[int] = []
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        if not target:
            early.append(number)
            return
        stops = number == getattr(signal, "SIGTSTP", None)
        if signal.Signals(number).name not in _FROM_TERMINAL or not _in_foreground():
            _send(target[0], number)
        if stops:
            # Stop as well, as a shell with job control expects it.
            os.kill(os.getpid(), signal.SIGSTOP)

    def begin(pid: int) -> None:
        target.append(pid)
        for number in early:
            _send(pid, number)

    before: dict[int, Any] = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        # What is ignored (nohup) is ignored by the program too, as it would be without us.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, forward)
    try:
        yield begin
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def _in_foreground() -> bool:
    """Whether a key pressed in the terminal reaches this process, and with it the program."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
