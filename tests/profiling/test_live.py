"""The live view: what it says of the last seconds, and how it shares a terminal with the program."""

from __future__ import annotations

import io
import os
import re
import threading

import pytest
from rich.text import Text

from imagen_fast.profiling import live
from imagen_fast.profiling.live import Bottom, Live, lines, recent
from imagen_fast.profiling.recording import Gpu, Recording, Samples, Steps

SECONDS = 60


def a_run(gpus=0, steps=True):
    """A sample and two steps a second."""
    each = list(range(1, SECONDS + 1))

    def series(**values):
        return {name: [value] * SECONDS for name, value in values.items()}

    host = series(cpu=3.25, memory=4.5e9, memory_available=20e9, read=1.2e8)
    told = series(
        utilisation=0.93, sm_active=0.8, tensor_active=0.4, dram_active=0.6, power=512.0, sm_clock=1.83e9
    )
    noted = Steps(
        pid=1,
        end=[at / 2 for at in range(1, 2 * SECONDS + 1)],
        seconds=[0.5] * 2 * SECONDS,
        data=[0.1] * 2 * SECONDS,
        data_cpu=[0.0] * 2 * SECONDS,
        images=[64] * 2 * SECONDS,
    )
    return Recording(
        command=["python"],
        started="2026-01-01T00:00:00+00:00",
        seconds=float(SECONDS),
        machine={"cores": 8},
        samples=Samples(1.0, each, host, [Gpu(place, "NVIDIA H100", series=told) for place in range(gpus)]),
        steps=[noted] if steps else [],
    )


def shown(run):
    return [line.plain for line in lines(run)]


def test_what_is_said_with_gpus():
    of_steps, host, *gpus, verdict = shown(a_run(gpus=2))
    assert of_steps == "profile 60.0 s  128 images/s  step 500 ms  waiting for data 20.0%"
    assert host == "host    CPU 3.25 cores  memory 4.50 GB  left 20.0 GB  read 120 MB/s"
    assert gpus == [
        f"GPU {place}   busy 93.0%  SM 80.0%  tensor 40.0%  DRAM 60.0%  512 W  1.83 GHz" for place in (0, 1)
    ]
    assert re.match(r"verdict \D+, confidence \d+% \((low|moderate|high)\)  \S", verdict)


def test_what_is_said_before_anything_is_known():
    empty = a_run(steps=False)
    empty.samples = Samples(1.0)
    of_steps, host, verdict = shown(empty)
    assert of_steps == "profile 60.0 s  no steps yet"
    assert host == "host    not sampled yet"
    assert verdict.startswith("verdict unknown, confidence 0% (low)")


def test_only_the_last_seconds_count():
    run = a_run(gpus=1)
    now = recent(run, 5.0)
    assert now.samples.time == [55, 56, 57, 58, 59, 60]
    assert now.steps[0].end[0] == 55
    assert {len(values) for values in now.samples.gpus[0].series.values()} == {6}
    assert len(now.steps[0].end) == len(now.steps[0].data) == len(now.steps[0].images) == 11
    # The recording itself is as it was.
    assert len(run.samples.time) == len(run.samples.host["cpu"]) == SECONDS


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(live, "_EVERY_LINE", 0.01)
    stream = io.StringIO()
    run, asked = a_run(), threading.Semaphore(0)
    with Live(lambda: asked.release() or run, stream):
        assert all(asked.acquire(timeout=20) for _ in range(3))
    written = stream.getvalue().splitlines()
    assert len(written) >= 2
    assert all(re.match(r"profile .*; host .*; verdict ", line) for line in written)
    assert "\x1b" not in stream.getvalue()


@pytest.fixture
def bottom(monkeypatch):
    """Of a terminal of 80 by 24; gives what was written since the last look, too."""

    class Terminal(io.StringIO):
        def fileno(self):
            return 2

    terminal = Terminal()
    size = [80, 24]
    monkeypatch.setattr(live.os, "get_terminal_size", lambda _: os.terminal_size(size))

    def taken():
        codes = terminal.getvalue()
        terminal.seek(0)
        terminal.truncate()
        return codes

    return Bottom(terminal), taken, size


def test_the_last_lines_are_kept_from_scrolling_and_given_back(bottom):
    at_the_bottom, written, _ = bottom
    at_the_bottom.write([Text("one"), Text("two" * 50)])
    first = written()
    # What stands there moves up, the region above scrolls, and the cursor is where the program left it.
    assert first.startswith("\n\n\x1b[2A\x1b7\x1b[1;22r\x1b8\x1b7\x1b[23;1H\x1b[2K")
    assert first.endswith("\x1b8")
    assert re.search(r"\x1b\[24;1H\x1b\[2K(two){26}t…\x1b8$", first)
    at_the_bottom.write([Text("one"), Text("two")])
    assert written() == "\x1b7\x1b[23;1H\x1b[2Kone\x1b[24;1H\x1b[2Ktwo\x1b8"
    at_the_bottom.give_back()
    assert written() == "\x1b7\x1b[23;1H\x1b[2K\x1b[24;1H\x1b[2K\x1b[r\x1b8"
    at_the_bottom.give_back()
    assert written() == ""


def test_a_terminal_that_changes_its_size_is_divided_anew(bottom):
    at_the_bottom, written, size = bottom
    at_the_bottom.write([Text("one")])
    written()
    size[1] = 10
    at_the_bottom.write([Text("one")] * 8)
    # No more than half of it is taken.
    assert "\x1b[1;5r" in written()


def test_a_terminal_that_was_not_drawn_in_is_left_as_it_is(bottom):
    at_the_bottom, written, _ = bottom
    at_the_bottom.give_back()
    assert written() == ""
