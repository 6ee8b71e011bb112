"""`pytest benchmarks/`: the same contests, and a JSON that reports and comparisons can read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import imagen_fast.benchmarks
from imagen_fast.benchmarks import record, suites
from imagen_fast.benchmarks.contender import OURS

pytest.importorskip("pytest_benchmark")

HERE = Path(imagen_fast.benchmarks.__file__).parent

FAKE = """
import time
import torch
from imagen_fast.benchmarks import roofline, suites
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import Absence, Refused

order = []
roofline.measure = lambda device: {
    "device": "cpu", "bandwidth": [{"bytes": 1, "fastest": 1e9}],
    "operations": {"fp32": 1e9}, "exponentials": {"fp32": 1e9},
}


def contender(name, seconds, correct=True):
    def call():
        torch.set_num_threads(7)
        order.append(name)
        time.sleep(seconds)

    return Contender("mae x step", name, lambda: (call, Verdict(correct, {"error": 7})))


def refuse():
    raise Refused(Absence("proud", "not this case", "installed, but refuses the case"))


class Fake:
    what = "nothing"

    def contests(self, device, quick):
        assert (device.type, quick) == ("cpu", False)
        contenders = [contender(OURS, 0.01), contender("slow", 0.05), contender("wrong", 0, False)]
        contenders.append(Contender("mae x step", "proud", refuse))
        absence = Absence("nobody", "needs a CUDA device", "pip install nobody")
        yield Contest("mae x", "step", lambda: contenders, Effort(0, 3, 3, 0), (absence,))


class Broken:
    what = "nothing that works"

    def contests(self, device, quick):
        collected = []

        def contenders():
            if collected:
                raise RuntimeError("the floor is wet")
            collected.append(True)
            return [contender(OURS, 0), contender("peer", 0)]

        absence = Absence("of a suite that was not held", "", "")
        yield Contest("broken", "step", contenders, Effort(0, 3, 3, 0), (absence,))


suites.SUITES["broken"] = Broken()
suites.SUITES["fake"] = Fake()
SUITE = "fake"


def test_fake(timed):
    timed()


def teardown_module():
    assert order == [OURS, "slow", "slow", OURS, OURS, "slow"]
"""


BROKEN = """
SUITE = "broken"


def test_broken(timed):
    timed()
"""


def run(*args):
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-rsf",
    ]
    # A run of its own: in a worker of xdist, as this one may be, nothing would be timed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *map(str, args)], capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A suite of three contenders beside the conftest.py of the others: what it said, and its JSON."""
    folder = tmp_path_factory.mktemp("benchmarks")
    shutil.copy(HERE / "conftest.py", folder)
    (folder / "test_fake.py").write_text(FAKE)
    (folder / "test_z_broken.py").write_text(BROKEN)
    path = folder / "fake.json"
    return run(folder, "--full", "--benchmark-json", path), path


def test_contenders_take_turns_and_whoever_is_wrong_fails(ran):
    told = ran[0].stdout
    assert "3 failed, 2 passed, 3 skipped" in told
    assert "test_fake[mae x step | wrong]" in told
    assert "AssertionError: {'error': 7}" in told
    assert "nobody: needs a CUDA device; pip install nobody" in told
    assert "proud: not this case; installed, but refuses the case" in told


def test_what_ends_a_contest_is_told_by_every_test_of_it(ran):
    assert len(re.findall(r"^E +RuntimeError: the floor is wet$", ran[0].stdout, re.MULTILINE)) == 2
    assert "KeyError" not in ran[0].stdout


def test_its_json_has_the_times_of_the_contest(ran):
    found = {b["extra_info"]["implementation"]: b for b in json.loads(ran[1].read_text())["benchmarks"]}
    assert [b["group"] for b in found.values()] == ["mae x"] * 2
    results = {r["implementation"]: r for r in record.read(ran[1])["results"]}
    for name in (OURS, "slow"):
        assert found[name]["stats"]["rounds"] == 3
        assert found[name]["stats"]["median"] == pytest.approx(results[name]["median"], rel=1e-6)
    assert found["slow"]["stats"]["median"] >= 0.05


def test_its_json_is_a_record_too(ran):
    made = record.read(ran[1])
    assert (made["suite"], made["quick"]) == ("fake", False)
    assert [(r["implementation"], r["correct"]) for r in made["results"]] == [
        (OURS, True),
        ("slow", True),
        ("wrong", False),
    ]
    assert [(r["case"], r["versus"]) for r in made["ratios"]] == [("mae x step", "slow")]
    assert made["machine"]["threads"] != 7, "what a suite sets holds for it alone"
    assert made["absent"] == [
        {"peer": "nobody", "why": "needs a CUDA device", "install": "pip install nobody"},
        {"peer": "proud", "why": "not this case", "install": "installed, but refuses the case"},
    ], "of the suite that was held"
    assert made["machine"]["roofline"]["operations"] == {"fp32": 1e9}


def test_side_by_side_nothing_is_timed_and_one_sentence_says_so():
    pytest.importorskip("xdist")
    told = run(HERE / "bench_train.py", "-n", "2")
    assert told.returncode == 4
    assert "ERROR: contests are timed in one process, one after another: leave out -n" in told.stderr


def test_collecting_sets_nothing_up(tmp_path):
    shutil.copy(HERE / "conftest.py", tmp_path)
    for name in suites.SUITES:
        shutil.copy(HERE / f"bench_{name}.py", tmp_path / f"test_{name}.py")
    (tmp_path / "test_a.py").write_text(
        "from imagen_fast import native\n"
        "def refuse(): raise AssertionError\n"
        "native.keep_freed_memory = refuse\n"
    )
    told = run(tmp_path, "--full", "--collect-only", "-q")
    assert told.returncode == 0, told.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_gets_one_sentence():
    told = run(HERE / "bench_train.py", "--device", "cuda", "--collect-only")
    assert told.returncode == 4
    assert "ERROR: device cuda was asked for, but PyTorch finds none here" in told.stderr


def test_every_suite_has_its_file():
    assert {path.stem for path in HERE.glob("bench_*.py")} == {f"bench_{name}" for name in suites.SUITES}


def test_files_collect_with_names_that_say_case_and_implementation():
    told = run(HERE / "bench_train.py", "--collect-only", "-q", "-o", "python_files=bench_*.py").stdout
    assert f"bench_train.py::test_train[mae small same-objective bf16 step | {OURS}]" in told
    assert "bench_train.py::test_train[mae small | torch.compile]" in told
