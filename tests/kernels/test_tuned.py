"""Block shapes from a table: what is read, what is not there, what is being tried."""

import json
from dataclasses import asdict
from functools import partial

import pytest
import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.kernels import launch, masked_patch_attention
from imagen_fast.kernels import masked_patch_attention_tuned as tables
from imagen_fast.kernels.masked_patch_attention_shapes import Blocks, Case

CHOSEN = Blocks(32, 128, 2, 1)
DERIVED = Blocks(64, 64, 4)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Puts a table of sm_90 where tables are read."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    tables.table.cache_clear()
    yield lambda text: tables.path(90).write_text(text)
    tables.table.cache_clear()


def entry(kernel="attention_forward", keys=256, width=64, type_="half", blocks=CHOSEN):
    return {"kernel": kernel, "keys": keys, "width": width, "type": type_, "blocks": asdict(blocks)}


def ask(keys=197, width=64, dtype=torch.bfloat16, capability=90, kernel="attention_forward", placed=False):
    return tables.tuned(kernel, keys, Case(width, dtype, capability, placed), DERIVED)


def test_an_entry_is_taken_for_all_that_share_its_tiles(write):
    write(json.dumps({"entries": [entry(), entry(keys=0, blocks=Blocks(128, 32, 8, 3))]}))
    assert ask() == ask(keys=256) == ask(width=48) == ask(dtype=torch.float16) == CHOSEN
    assert ask(keys=257) == ask(keys=4096) == Blocks(128, 32, 8, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"keys": 128},
        {"width": 32},
        {"width": 65},
        {"dtype": torch.float32},
        {"capability": 80},
        {"kernel": "attention_backward_keys"},
        {"placed": True},
    ],
)
def test_without_an_entry_the_derived_choice_stays(write, other):
    write(json.dumps({"entries": [entry()]}))
    assert ask(**other) == DERIVED


def test_without_a_table_the_derived_choice_stays(write):
    assert ask() == DERIVED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entries": [{"kernel": "x"}]}'])
def test_a_broken_table_is_named(write, text):
    write(text)
    with pytest.raises(InvalidInput, match=r"sm_90\.json is no table of block shapes"):
        ask()


def test_what_is_tried_goes_before_the_table_and_ends_with_the_trial(write):
    write(json.dumps({"entries": [entry()]}))
    tried = Blocks(16, 16, 8)
    with tables.trying("attention_forward", tried):
        assert ask() == tried
        assert ask(kernel="attention_backward_keys") == DERIVED
    assert ask() == CHOSEN


@pytest.mark.skipif(not launch.INSTALLED, reason="launches name Triton kernels")
@pytest.mark.parametrize(
    ("rows", "kernels"),
    [
        (49, ["attention_forward_short", "attention_backward_short"]),
        (197, ["attention_forward", "attention_backward_two_phase"]),
        (1024, ["attention_forward", "attention_backward_queries", "attention_backward_keys"]),
    ],
)
def test_every_launcher_asks_the_table(write, rows, kernels):
    """Under the name that the kernel has."""
    qkv = torch.empty((2, rows, 3, 12, 64), dtype=torch.bfloat16, device="meta").unbind(2)
    d_out = torch.empty((2, rows, 12, 64), dtype=torch.bfloat16, device="meta")
    tail = (*(None,) * 4, rows, rows, 0.1)
    runs = (
        partial(masked_patch_attention.run_forward, *qkv, *tail),
        partial(masked_patch_attention.run_backward, d_out, *qkv, *tail),
    )
    seen = {}
    chosen = {kernel: Blocks(16, 32, 16, 4 - number) for number, kernel in enumerate(kernels)}
    keys = {kernel: tables.key(kernel, rows, 64, torch.bfloat16).keys for kernel in kernels}
    write(json.dumps({"entries": [entry(k, keys[k], blocks=blocks) for k, blocks in chosen.items()]}))
    with launch.recording(90) as launches:
        for run in runs:
            run()
    for one in launches:
        sides = one.arguments["BLOCK_M"], one.arguments["BLOCK_N"]
        seen[one.kernel.fn.__name__] = Blocks(*sides, one.options["num_warps"], one.options["num_stages"])
    assert seen == chosen


@pytest.mark.skipif(not launch.INSTALLED, reason="launches name Triton kernels")
def test_what_a_launch_is_given_can_be_asked_for():
    qkv = torch.empty((2, 49, 3, 12, 64), dtype=torch.bfloat16, device="meta").unbind(2)
    with launch.recording(90), tables.asked() as blocks:
        masked_patch_attention.run_forward(*qkv, *(None,) * 4, 49, 49, 0.1)
    assert blocks == {"attention_forward_short": Blocks(64, 64, 4, 2, resident=3)}
