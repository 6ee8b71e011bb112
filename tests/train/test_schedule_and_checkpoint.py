from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.train import Checkpoint, Run, load_checkpoint, save_checkpoint, working_type
from imagen_fast.train.checkpoint import checkpoint_folders
from imagen_fast.train.logs import JsonLog, read_log
from imagen_fast.train.precision import choose_device
from imagen_fast.train.schedule import cosine_with_warmup


def test_schedule_rises_then_falls_to_its_floor():
    factors = [cosine_with_warmup(s, 100, 10) for s in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[55] == pytest.approx(0.5)
    assert cosine_with_warmup(100, 100, 10, floor=0.2) == pytest.approx(0.2)


def checkpoint(step):
    return Checkpoint(
        step, {"w": torch.full((3,), float(step))}, {"steps": torch.tensor(step)}, {"note": "x"}
    )


def test_checkpoints_are_whole_and_the_newest_is_loaded(tmp_path):
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert [f.name for f in checkpoint_folders(tmp_path)] == ["step-00000010", "step-00000015"]
    loaded = load_checkpoint(tmp_path)
    assert (loaded.step, loaded.state, loaded.weights["w"].tolist()) == (15, {"note": "x"}, [15.0] * 3)
    # What a crash leaves half written is never taken for a checkpoint.
    (tmp_path / "checkpoints" / ".step-00000020.partial").mkdir()
    assert load_checkpoint(tmp_path).step == 15
    save_checkpoint(tmp_path, checkpoint(15))
    assert load_checkpoint(tmp_path).step == 15


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_one_sentence(tmp_path, name):
    folder = save_checkpoint(tmp_path, checkpoint(5))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_without_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        Run.open(tmp_path)


def test_a_run_is_not_overwritten(tmp_path):
    run = Run.create(tmp_path / "run", {"kind": "pretrain"})
    assert Run.open(run.folder).config["kind"] == "pretrain"
    save_checkpoint(run.folder, checkpoint(1))
    with pytest.raises(InvalidInput, match="already holds a run"):
        Run.create(run.folder, {})


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    path.write_text(path.read_text() + '{"step": 4, "lo')  # cut short by a crash
    JsonLog(path, start=2).close()
    assert [line["step"] for line in read_log(path)] == [1, 2]
    assert json.loads(path.read_text().splitlines()[0]) == {"step": 1, "loss": 1.0}


def test_precision_and_device():
    cpu = torch.device("cpu")
    assert working_type("bf16", cpu) == torch.bfloat16
    assert working_type("fp32", cpu) == torch.float32
    assert working_type("auto", cpu) in (torch.bfloat16, torch.float32)
    with pytest.raises(InvalidInput, match="precision must be"):
        working_type("fp8", cpu)
    with pytest.raises(InvalidInput, match="device must be"):
        choose_device("gpu")


@pytest.mark.parametrize("content", ["[]", "[1, 2]", "{}", '{"step": null}', "3"])
def test_a_state_that_is_none_is_one_sentence(tmp_path, content):
    folder = save_checkpoint(tmp_path, checkpoint(5))
    (folder / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_saving_clears_what_crashed_runs_left(tmp_path):
    left = tmp_path / "checkpoints" / ".step-00000003.partial"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path, checkpoint(5))
    assert [p.name for p in left.parent.iterdir()] == ["step-00000005"]


def test_a_crash_while_a_step_is_saved_again_loses_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(5))
    rename = Path.rename

    def crash(path, target):
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(5))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).weights["w"].tolist() == [5.0] * 3


def test_a_crash_while_a_log_is_shortened_leaves_it_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        JsonLog(path, start=1)
    assert [line["step"] for line in read_log(path)] == [1, 2]
