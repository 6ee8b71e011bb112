"""`with imagen_fast.profile():` a part of the own program."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from imagen_fast.profiling import files, program
from imagen_fast.profiling.brief import brief
from imagen_fast.profiling.findings import Summary, Verdict
from imagen_fast.profiling.recording import Ceilings, Recording
from imagen_fast.profiling.run import WINDOW, assemble, now
from imagen_fast.profiling.sampler import Sampler
from imagen_fast.profiling.summary import without_first


class profile:
    """Profiles what runs inside, in this process and those that it starts.

    Loaders and optimisers may have been made before. When the block is left, by an exception too, the files
    are written, the verdict goes to standard error, and `recording`, `summary` and `verdict` are there.

    Args:
        out: the folder for profile.json, profile.html and profile.png; None for `profile-TIME`.
        interval: seconds between samples; None for as many as cost next to nothing.
        window: steps of which every operation is recorded; 0: none.
        ceilings: measure steps with batches that lie in memory: a few are drawn a little earlier.

    Raises:
        InvalidInput: nothing can be written to `out`.
    """

    recording: Recording
    summary: Summary
    verdict: Verdict

    def __init__(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        interval: float | None = None,
        window: int = WINDOW,
        ceilings: bool = False,
    ) -> None:
        self._out = files.usual_folder() if out is None else Path(out)
        self._interval, self._window, self._ceilings = interval, window, ceilings
        self._measured: tuple[float, float | None] | None = None

    def __enter__(self) -> profile:
        files.prepare(self._out)
        self._place = tempfile.TemporaryDirectory(prefix="imagen-fast-profile-", ignore_cleanup_errors=True)
        self._folder = Path(self._place.name)
        self._start, self._started = time.monotonic(), now()
        program.attach(self._folder, self._start, window=self._window, ceilings=self._ceilings)
        pid = os.getpid()
        self._sampler = Sampler(pid, self._start, self._interval, training=lambda: (pid,))
        self._sampler.begin()
        return self

    def step(self, images: int = 0) -> None:
        """Say that a step of the own loop has ended, where no optimiser of PyTorch tells.

        Args:
            images: that it learned from, where no loader tells.
        """
        program.step(images)

    def measure_ceilings(self, step: Callable[[], object]) -> None:
        """Measure how fast a step could be, without waiting for input and, on a GPU, without launching.

        Call it inside the block, between the program's own steps; it takes 20 to 40 of them. A loop over a
        loader that is watched has the first of the two measured by `ceilings=True`.

        Args:
            step: one training step on a batch that lies where the model does; weights and all.

        Raises:
            InvalidInput: it cannot be captured as a CUDA graph, and why.
        """
        from imagen_fast.profiling.ceilings import measure

        with program.unwatched():
            self._measured = measure(step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.end()
        seconds = time.monotonic() - self._start
        program.detach()
        with self._place:
            collected = program.collect(self._folder)
        if self._measured is not None and collected.steps:
            as_is = statistics.fmean(without_first(collected.steps[0]).seconds)
            collected.ceilings = Ceilings(as_is, *self._measured, rounds=1)
            collected.absent.pop("ceilings", None)
        self.recording = assemble(sys.argv, self._started, seconds, self._sampler.samples(), collected)
        self.summary, self.verdict = files.keep(self.recording, self._out)
        print(brief(self.summary, self.verdict, self._out / files.RECORD), file=sys.stderr)
