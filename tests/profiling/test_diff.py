"""Comparing two profiles: the same is the same, and a change is found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recordings import cpu_run, empty_run, gpu_run
from rich.console import Console

from imagen_fast.cli import main
from imagen_fast.errors import InvalidInput
from imagen_fast.profiling.diff import _step_time, compare, show
from imagen_fast.profiling.findings import to_dict

RUNS = 40


def kept(profile):
    recording, summary, verdict = profile
    return recording.to_dict() | to_dict(summary, verdict)


def steps(rng, many, scale=1.0):
    """Steps that resemble their neighbours, as those of a real run do; some are slow."""
    noise = rng.standard_normal(many) * 0.02
    for at in range(1, many):
        noise[at] += 0.5 * noise[at - 1]
    return scale * 0.15 * np.exp(noise + 0.4 * (rng.random(many) < 0.03))


def outcomes(scale):
    rng = np.random.default_rng(7)
    return [_step_time(steps(rng, 200), steps(rng, 200, scale)).outcome for _ in range(RUNS)]


def test_the_same_is_seldom_called_a_change():
    found = outcomes(1.0)
    assert found.count("same") >= 0.95 * RUNS
    assert found.count("faster") + found.count("slower") == 0


def test_five_percent_are_found():
    assert outcomes(1.05).count("slower") >= 0.95 * RUNS


def test_five_percent_less_are_found():
    assert outcomes(1 / 1.05).count("faster") >= 0.95 * RUNS


def test_a_profile_against_itself():
    one = kept(gpu_run())
    found = compare(one, one)
    assert found.step.outcome == "same"
    assert found.step.ratio == 1
    assert found.differences == []
    assert found.machines == []


def test_other_runs_of_the_same():
    """Of forty quantities none is listed by chance, but in one comparison of twenty."""
    pairs = [(kept(gpu_run(seed=seed)), kept(gpu_run(seed=seed + 1))) for seed in range(100, 124, 2)]
    found = [compare(*pair) for pair in pairs]
    assert {one.step.outcome for one in found} == {"same"}
    assert sum(bool(one.differences) for one in found) <= 2


def test_what_changed_is_listed():
    before, after = gpu_run(), gpu_run(seed=1)
    recording, summary, _ = after
    recording.samples.gpus[0].series["power"] = [
        None if value is None else 0.8 * value for value in recording.samples.gpus[0].series["power"]
    ]
    recording.window.ops[0].seconds *= 1.5
    recording.machine["versions"]["torch"] = "2.15.0"
    summary.shares |= {"compute": 0.52, "data": 0.14}
    summary.mfu = 0.30
    found = compare(kept(before), kept(after))
    assert [(one.group, one.name) for one in found.differences] == [
        ("figures", "model FLOP utilisation"),
        ("shares", "compute-bound"),
        ("shares", "waiting for data"),
        ("operations", "aten::addmm"),
        ("quantities", "GPU 0: power"),
    ]
    low, high = found.differences[-1].interval
    assert low < -0.2 * 612 < high
    assert found.machines == [("versions torch", "2.14.1", "2.15.0")]
    console = Console(width=160, record=True)
    show(found, console)
    shown = console.export_text()
    assert "Same: a step takes 152 ms before" in shown
    assert "-10.0 points" in shown
    assert "the machines differ: versions torch 2.14.1 before, 2.15.0 after" in shown


def test_too_little_to_tell():
    assert compare(kept(gpu_run()), kept(empty_run())).step.why == "one of the profiles has no steps"
    short = cpu_run()
    for name in ("end", "seconds", "data", "data_cpu", "images"):
        setattr(short[0].steps[0], name, getattr(short[0].steps[0], name)[:5])
    found = compare(kept(short), kept(cpu_run()))
    assert found.step.outcome == "unclear"
    assert found.step.why == "one has 4 steady steps; 8 are needed"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"format": "a recipe"}, "the second file: this is no profile"),
        ({"version": 99}, "the second file: the profile is of version 99; this program reads version 1"),
        ({"verdict": None}, "the second file holds no summary and verdict that can be read"),
        ({"summary": {"speed": 1}}, "the second file holds no summary and verdict that can be read"),
    ],
)
def test_other_files_are_refused_in_a_sentence(wrong, why):
    with pytest.raises(InvalidInput, match=why):
        compare(kept(cpu_run()), kept(cpu_run()) | wrong)


def test_the_command(tmp_path, capsys):
    for name, profile in (("a", gpu_run()), ("b", gpu_run(step=0.19, seed=1))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "profile.json").write_text(json.dumps(kept(profile)))
    page = tmp_path / "diff.html"
    words = [
        "profile",
        "diff",
        str(tmp_path / "a"),
        str(tmp_path / "b" / "profile.json"),
        "--html",
        str(page),
    ]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    assert capsys.readouterr().out.startswith("Slower: a step takes 152 ms before")
    assert "Slower: a step takes 152 ms before" in page.read_text()
