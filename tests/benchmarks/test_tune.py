"""The search for block shapes, with a stopwatch that is told what to say."""

import json
import math
from dataclasses import astuple

import pytest
import torch

from imagen_fast.benchmarks import tune
from imagen_fast.errors import InvalidInput
from imagen_fast.kernels import launch
from imagen_fast.kernels import masked_patch_attention_tuned as tables
from imagen_fast.kernels.masked_patch_attention_shapes import Blocks

START = Blocks(64, 64, 4, 2)
KERNEL = "attention_forward"
SHORT = "attention_forward_short"


def valley(lowest):
    """Seconds that rise by a fifth with each step away from `lowest`."""

    def seconds(blocks):
        steps = sum(
            abs(math.log2(a / b)) for a, b in zip(astuple(blocks)[:3], astuple(lowest)[:3], strict=True)
        )
        return 1.2 ** (steps + abs(blocks.stages - lowest.stages))

    return seconds


def test_neighbours_are_one_step_away_and_within_what_a_kernel_can_hold():
    assert set(tune.neighbours(KERNEL, Blocks(16, 256, 2, 1))) == {
        Blocks(32, 256, 2, 1),
        Blocks(16, 128, 2, 1),
        Blocks(16, 256, 4, 1),
        Blocks(16, 256, 2, 2),
    }
    backward = set(tune.neighbours("attention_backward_short", Blocks(32, 64, 4)))
    assert {(b.n, b.resident) for b in backward} == {(64, 1)}
    forward = set(tune.neighbours("attention_forward_short", Blocks(64, 64, 4, 2, 3)))
    assert {(b.n, b.resident) for b in forward} == {(64, 2), (64, 3), (64, 4)}


def test_the_search_walks_to_the_fastest():
    lowest = Blocks(16, 128, 8, 4)
    best, known = tune.search(KERNEL, START, valley(lowest))
    assert best == lowest
    assert known[best] == min(known.values())


def test_nobody_is_timed_twice_in_a_search():
    asked = []

    def seconds(blocks):
        asked.append(blocks)
        return valley(Blocks(16, 32, 4, 2))(blocks)

    tune.search(KERNEL, START, seconds)
    assert len(asked) == len(set(asked))


def test_a_candidate_that_is_not_correct_is_passed_by():
    fast_but_wrong = Blocks(32, 64, 4, 2)

    def seconds(blocks):
        return None if blocks == fast_but_wrong else valley(fast_but_wrong)(blocks)

    best, known = tune.search(KERNEL, START, seconds)
    assert best != fast_but_wrong
    assert known[best] is not None
    entry = tune.choose(KERNEL, START, seconds)
    assert entry["refused"] == 1


def test_a_present_choice_that_fails_is_replaced():
    entry = tune.choose(KERNEL, START, lambda blocks: None if blocks == START else 1.0)
    assert entry["blocks"] != entry["before"]["blocks"]
    assert entry["before"]["seconds"] is None


def test_noise_is_no_gain():
    entry = tune.choose(KERNEL, START, lambda blocks: 1.0 if blocks == START else 0.99)
    assert entry["blocks"] == entry["before"]["blocks"]


def test_a_lucky_time_does_not_last():
    """Fast while searched for, slow when it is timed again beside the present choice."""
    lucky, asked = Blocks(32, 64, 4, 2), []

    def seconds(blocks):
        asked.append(blocks)
        return 0.5 if blocks == lucky and asked.count(lucky) == 1 else 1.0

    entry = tune.choose(KERNEL, START, seconds)
    assert asked.count(lucky) == 1 + tune.ROUNDS
    assert entry["blocks"] == entry["before"]["blocks"]


@pytest.mark.skipif(not launch.INSTALLED, reason="launches name Triton kernels")
def test_problems_reach_every_entry_that_a_launch_can_ask_for():
    found = {
        tables.key(kernel, problem.case.keys, problem.case.width, problem.case.dtype)
        for problem in tune.problems(torch.device("meta"))
        for kernel in kernels_of(problem)
    }
    # Rows: 64, 128 and 256 keys, and longer ones; widths: three tiles; types: half and float32.
    assert {key.keys for key in found} == {64, 128, 256, 0}
    assert {key.width for key in found} == {32, 64, 128}
    forward = [key for key in found if key.kernel in (KERNEL, SHORT)]
    assert len(forward) == 4 * 3 * 2


def kernels_of(problem):
    """On the meta device nothing is drawn at random."""
    case = problem.case
    shape = (case.images, case.keys, 3, case.heads, case.width)
    qkv = torch.empty(shape, dtype=case.dtype, device="meta").unbind(2)
    case.__dict__["grid"] = (*qkv, torch.empty(qkv[0].shape, dtype=case.dtype, device="meta"))
    return problem.kernels(90)


def test_a_table_keeps_what_was_not_tuned_again(tmp_path):
    def entry(keys, n):
        return {"kernel": KERNEL, "keys": keys, "width": 64, "type": "half", "blocks": {"n": n}}

    file = tmp_path / "new" / "sm_90.json"
    tune.write(file, [entry(64, 1), entry(128, 2)], {"gpu": "a"})
    tune.write(file, [entry(64, 3)], {"gpu": "b"})
    assert json.loads(file.read_text()) == {"machine": {"gpu": "b"}, "entries": [entry(64, 3), entry(128, 2)]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_there_is_one_sentence():
    with pytest.raises(InvalidInput, match="PyTorch finds no CUDA device here") as raised:
        tune.main([])
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_table_is_written_that_the_kernels_read(tmp_path, monkeypatch):
    for name, values in {
        "KEYS": (49,),
        "WIDTHS": (32,),
        "TYPES": ("bf16",),
        "TOKENS": 490,
        "SAMPLES": 3,
    }.items():
        monkeypatch.setattr(tune, name, values)
    file = tables.path(launch.capability(torch.device("cuda")))
    file = tmp_path / file.name
    assert tune.main(["--json", str(file)]) == 0
    entries = json.loads(file.read_text())["entries"]
    assert {entry["kernel"] for entry in entries} == {SHORT, "attention_backward_short"}
    assert all(entry["seconds"] > 0 for entry in entries)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    tables.table.cache_clear()
    try:
        assert len(tables.table(launch.capability(torch.device("cuda")))) == len(entries)
    finally:
        tables.table.cache_clear()
