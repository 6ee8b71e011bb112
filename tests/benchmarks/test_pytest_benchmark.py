"""`pytest benchmarks/`: the same contests, and a JSON that reports and comparisons can read."""

import json
import os
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
from imagen_fast.benchmarks import suites
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import Absence

order = []


def contender(name, seconds, correct=True):
    def call():
        torch.set_num_threads(7)
        order.append(name)
        time.sleep(seconds)

    return Contender("mae x step", name, lambda: (call, Verdict(correct, {"error": 7})))


class Fake:
    what = "nothing"

    def contests(self, device, quick):
        assert (device.type, quick) == ("cpu", False)
        contenders = [contender(OURS, 0.01), contender("slow", 0.05), contender("wrong", 0, False)]
        absence = Absence("nobody", "needs a CUDA device", "pip install nobody")
        yield Contest("mae x", "step", lambda: contenders, Effort(0, 3, 3, 0), (absence,))


suites.SUITES["fake"] = Fake()
SUITE = "fake"


def test_fake(timed):
    timed()


def teardown_module():
    assert order == [OURS, "slow", "slow", OURS, OURS, "slow"]
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
    path = folder / "fake.json"
    return run(folder, "--full", "--benchmark-json", path), path


def test_contenders_take_turns_and_whoever_is_wrong_fails(ran):
    told = ran[0].stdout
    assert "1 failed, 2 passed, 1 skipped" in told
    assert "test_fake[mae x step | wrong]" in told
    assert "AssertionError: {'error': 7}" in told
    assert "nobody: needs a CUDA device; pip install nobody" in told


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
        {"peer": "nobody", "why": "needs a CUDA device", "install": "pip install nobody"}
    ]


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
