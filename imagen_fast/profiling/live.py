"""`--live`: how the program runs, at the bottom of its terminal while it runs, or as lines in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TextIO

from rich.console import Console
from rich.text import Text

from imagen_fast.profiling.findings import Summary, Verdict
from imagen_fast.profiling.numbers import duration, text
from imagen_fast.profiling.quantities import GPU, HOST, Quantity
from imagen_fast.profiling.recording import Gpu, Recording, Samples, Series, Steps
from imagen_fast.profiling.summary import summarise
from imagen_fast.profiling.verdict import judge
from imagen_fast.profiling.words import cause, certainty

# What is shown is of the last so many seconds.
_RECENT = 15.0
_EVERY, _EVERY_LINE = 1.0, 10.0
# Of one core; a long recording takes longer to sum up, and is then shown more seldom.
_SHARE = 0.02

_OF_HOST = (("CPU", "cpu"), ("memory", "memory"), ("left", "memory_available"), ("read", "read"))
_OF_GPU = (
    *(("busy", "utilisation"), ("SM", "sm_active"), ("tensor", "tensor_active"), ("DRAM", "dram_active")),
    *(("", "power"), ("", "sm_clock"), ("", "program_memory"), ("throttled", "throttled")),
)


class Live:
    """Shows until it is left what `so_far` tells.

    Args:
        stream: a terminal, of which the last lines are taken and the program writes above them; or anything
            else, which gets a line every ten seconds.
    """

    def __init__(self, so_far: Callable[[], Recording], stream: TextIO | None = None) -> None:
        self._so_far = so_far
        self._stream = sys.stderr if stream is None else stream
        self._bottom = Bottom(self._stream) if self._stream.isatty() else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagen-fast-live", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._bottom is not None:
            self._bottom.give_back()

    def _run(self) -> None:
        usual = _EVERY_LINE if self._bottom is None else _EVERY
        wait = usual
        while not self._over.wait(wait):
            before = time.thread_time()
            self._show(lines(self._so_far()))
            wait = max(usual, (time.thread_time() - before) / _SHARE)

    def _show(self, shown: list[Text]) -> None:
        if self._bottom is not None:
            self._bottom.write(shown)
            return
        self._stream.write("; ".join(line.plain for line in shown) + "\n")
        self._stream.flush()


class Bottom:
    """The last lines of a terminal; the program's own output scrolls above them, whoever writes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._taken = 0
        self._rows = 0

    def write(self, shown: list[Text]) -> None:
        columns, rows = os.get_terminal_size(self._stream.fileno())
        shown = shown[: max(rows // 2, 1)]
        console = Console(file=self._stream, force_terminal=True, width=columns, highlight=False)
        with console.capture() as captured:
            for line in shown:
                line.truncate(columns, overflow="ellipsis")
                console.print(line)
        drawn = "".join(
            f"\x1b[{rows - len(shown) + 1 + place};1H\x1b[2K{line}"
            for place, line in enumerate(captured.get().splitlines())
        )
        # Saved and restored around it, the cursor stays where the program left it; in one piece, so that
        # nothing that the program writes comes in between.
        self._put(self._take(len(shown), rows) + f"\x1b7{drawn}\x1b8")

    def give_back(self) -> None:
        """The whole terminal scrolls again."""
        if not self._taken:
            return
        first = self._rows - self._taken + 1
        cleared = "".join(f"\x1b[{row};1H\x1b[2K" for row in range(first, self._rows + 1))
        self._put(f"\x1b7{cleared}\x1b[r\x1b8")
        self._taken = 0

    def _take(self, lines: int, rows: int) -> str:
        if (lines, rows) == (self._taken, self._rows):
            return ""
        new = max(lines - self._taken, 0) if rows == self._rows or not self._rows else lines
        self._taken, self._rows = lines, rows
        # Lines that stand where ours will be move up first; setting the region moves the cursor.
        return "\n" * new + f"\x1b[{new}A" * bool(new) + f"\x1b7\x1b[1;{rows - lines}r\x1b8"

    def _put(self, codes: str) -> None:
        self._stream.write(codes)
        self._stream.flush()


def lines(recording: Recording) -> list[Text]:
    """What the last seconds say: the steps, the host, each GPU, and the verdict."""
    now = recent(recording, _RECENT)
    summary = summarise(now)
    return [
        _of_steps(recording, now, summary),
        _of_samples("host", now.samples.host, _OF_HOST, HOST),
        *(_of_samples(f"GPU {gpu.index}", gpu.series, _OF_GPU, GPU) for gpu in now.samples.gpus),
        _of_verdict(judge(now, summary)),
    ]


def recent(recording: Recording, seconds: float) -> Recording:
    """The samples and steps of the last seconds; what was recorded once stays."""
    since = recording.seconds - seconds
    samples = recording.samples
    first = sum(at < since for at in samples.time)

    def cut(series: Series) -> Series:
        return {name: values[first:] for name, values in series.items()}

    gpus: list[Gpu] = [replace(gpu, series=cut(gpu.series)) for gpu in samples.gpus]
    kept = [_cut_steps(steps, since) for steps in recording.steps]
    return replace(
        recording,
        samples=Samples(samples.interval, samples.time[first:], cut(samples.host), gpus, samples.absent),
        steps=[steps for steps in kept if steps.end],
    )


def _cut_steps(steps: Steps, since: float) -> Steps:
    first = sum(end < since for end in steps.end)
    names = ("end", "seconds", "data", "data_cpu", "images")
    return replace(steps, **{name: getattr(steps, name)[first:] for name in names})


def _of_steps(recording: Recording, now: Recording, summary: Summary) -> Text:
    told = [duration(recording.seconds)]
    if summary.step_seconds is None:
        return _line("profile", [*told, "no steps yet"])
    if summary.images_per_second is not None:
        told.append(text(summary.images_per_second, "images/s"))
    waited = sum(sum(steps.data) for steps in now.steps) / sum(sum(steps.seconds) for steps in now.steps)
    told += [f"step {text(summary.step_seconds, 'seconds')}", f"waiting for data {text(waited, 'share')}"]
    return _line("profile", told)


def _of_samples(
    title: str, series: Series, wanted: tuple[tuple[str, str], ...], units: dict[str, Quantity]
) -> Text:
    """The last value of each quantity that there is."""
    told = []
    for short, name in wanted:
        value = next((value for value in reversed(series.get(name, [])) if value is not None), None)
        if value is not None:
            told.append(f"{short} {text(value, units[name].unit)}".strip())
    return _line(title, told or ["not sampled yet"])


def _of_verdict(verdict: Verdict) -> Text:
    said = f"{cause(verdict.bottleneck)}, confidence {certainty(verdict.confidence)}"
    return _line("verdict", [said, *verdict.evidence[:1]])


def _line(title: str, told: list[str]) -> Text:
    return Text.assemble((f"{title:8}", "bold cyan"), "  ".join(told))
