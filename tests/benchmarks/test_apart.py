"""Contenders in processes of their own: the same contest, whatever becomes of one of them."""

import importlib
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from imagen_fast.benchmarks.contest import Contest, hold
from imagen_fast.benchmarks.measure import Effort

CPU = torch.device("cpu")


def run(contenders, effort, apart=True, tell=lambda _: None):
    return hold(Contest("fake", "step", contenders, effort, apart=apart), CPU, tell)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "importable")
    return importlib.import_module("fake_contenders")


def lines(log):
    """What each call said: the contender's name and its process."""
    return [(name, int(process)) for name, process in (line.rsplit(" ", 1) for line in log.open())]


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_everyone_has_a_process_and_runs_once_a_round_in_rotating_order(fakes, tmp_path):
    log = tmp_path / "log"
    results = run(partial(fakes.good, log), Effort(1, 3, 3, 0))
    said = lines(log)
    assert "".join(name for name, _ in said) == "xyz" + "xyz" + "yzx" + "zxy"
    assert len(set(said)) == len({process for _, process in said} - {os.getpid()}) == 3
    assert [len(result.timing.samples) for result in results] == [3, 3, 3]


@pytest.mark.parametrize("apart", [False, True])
def test_results_are_alike_here_and_apart(fakes, tmp_path, apart):
    result = run(partial(fakes.good, tmp_path / "log"), Effort(0, 2, 2, 0), apart)[0]
    assert (result.case, result.implementation, result.measured) == ("a", "x", "step")
    assert result.verdict.correct
    assert result.facts == {"images": 2, "contest": "fake", "apart": apart}
    assert 0 < result.timing.median < 5
    assert result.timing.cpu_median is not None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the platform does not count this")
def test_peak_memory_is_that_of_the_timed_calls(fakes, tmp_path):
    """Without what the checks freed."""
    log = tmp_path / "log"
    small, large, littered = (
        run(contenders, Effort(0, 1, 1, 0))[0].timing.peak_bytes
        for contenders in (
            partial(fakes.good, log),
            partial(fakes.good, log, 2**27),
            partial(fakes.litters, log),
        )
    )
    assert abs(large - small - 2**27) < 2**24
    if platform.libc_ver()[0] == "glibc":
        assert abs(littered - small) < 2**24


def test_the_bad_are_reported_and_the_others_timed(fakes, tmp_path):
    results = {r.implementation: r for r in run(partial(fakes.bad, tmp_path / "log"), Effort(0, 2, 2, 0))}
    killed = "its process was killed by SIGKILL, perhaps for lack of memory"
    assert {name: r.verdict.evidence for name, r in results.items() if not r.verdict.correct} == {
        "raises": {"failed": "MemoryError: no room"},
        "dies": {"failed": killed},
        "raises later": {"failed": "MemoryError: no room"},
        "dies later": {"failed": killed},
        "leaves later": {"failed": "its process ended with exit code 3"},
    }
    assert {name: len(r.timing.samples) for name, r in results.items() if r.timing} == {"x": 2, "y": 2}


def test_a_process_that_cannot_say_who_takes_part_says_why(fakes, tmp_path):
    (result,) = run(partial(fakes.late, os.getpid(), tmp_path / "log"), Effort(0, 1, 1, 0))
    assert result.verdict.evidence == {"failed": "MemoryError: no room"}


def test_a_process_has_as_many_threads_as_its_parent(fakes, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    try:
        results = run(partial(fakes.good, tmp_path / "log"), Effort(0, 1, 1, 0))
    finally:
        torch.set_num_threads(before)
    assert {result.verdict.evidence["threads"] for result in results} == {before + 2}


@pytest.mark.parametrize("when", ["checking", "timing", "never"])
def test_nobody_is_left_even_when_the_parent_is_interrupted(fakes, tmp_path, when):
    seen = []

    def tell(what):
        seen.extend(multiprocessing.active_children())
        if what.startswith(f"fake: {when}") and seen:
            raise KeyboardInterrupt

    with nullcontext() if when == "never" else pytest.raises(KeyboardInterrupt):
        run(partial(fakes.good, tmp_path / "log"), Effort(0, 1, 1, 0), tell=tell)
    assert seen
    assert multiprocessing.active_children() == []
    assert not any(is_running(process.pid) for process in seen)


def test_a_worker_ends_when_its_parent_is_killed(fakes, tmp_path):
    """The parent is a program of its own, which kills itself in the middle of the race."""
    program = f"""
import os, signal, sys, multiprocessing
sys.path.insert(0, {str(Path(fakes.__file__).parent)!r})
import fake_contenders, torch
from functools import partial
from pathlib import Path
from imagen_fast.benchmarks.contest import Contest, hold
from imagen_fast.benchmarks.measure import Effort

def tell(what):
    if "timing" in what:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

contenders = partial(fake_contenders.good, Path({str(tmp_path / "log")!r}))
hold(Contest("fake", "step", contenders, Effort(0, 1, 1, 0), apart=True), torch.device("cpu"), tell)
"""
    told = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    workers = [int(process) for process in told.stdout.split()]
    assert len(workers) == 3, told.stderr
    deadline = time.monotonic() + 10
    while any(is_running(process) for process in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(process) for process in workers)
