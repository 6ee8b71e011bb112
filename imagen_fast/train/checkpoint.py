"""Checkpoints: safetensors and JSON, no pickle, written whole or not at all.

A run's folder holds `checkpoints/step-00000100/` with `weights.safetensors` (float32, our parameter
names), `optimizer.safetensors` (moments, random state) and `state.json`. A checkpoint is written beside
its name and renamed: whoever sees it sees all of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagen_fast.errors import CheckpointError

_NAME = re.compile(r"step-(\d{8})$")


@dataclass
class Checkpoint:
    """Everything a run needs to go on: `step` steps are done."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_folders(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    return sorted(p for p in folder.glob("step-*") if _NAME.match(p.name)) if folder.is_dir() else []


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint atomically, then delete all but the newest `keep`."""
    final = run / "checkpoints" / f"step-{checkpoint.step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    aside = final.with_name(f".{final.name}.old")
    # What a run that was killed left half written.
    for left in (*final.parent.glob(".step-*.partial"), aside):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in checkpoint.weights.items()}, partial / "weights.safetensors")
    save_file({k: v.contiguous() for k, v in checkpoint.optimizer.items()}, partial / "optimizer.safetensors")
    (partial / "state.json").write_text(
        json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=2) + "\n"
    )
    for file in (*partial.iterdir(), partial):
        _sync(file)
    if final.exists():  # set aside, not deleted, so that it can come back
        final.rename(aside)
    try:
        partial.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    _sync(final.parent)
    for old in (*checkpoint_folders(run)[:-keep], *final.parent.glob(".step-*.old")):
        shutil.rmtree(old)
    return final


def load_checkpoint(run: Path) -> Checkpoint:
    """The newest checkpoint of a run.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    folders = checkpoint_folders(run)
    if not folders:
        raise CheckpointError(f"{run} holds no checkpoint")
    folder = folders[-1]
    try:
        state = dict(json.loads((folder / "state.json").read_text()))
        step = int(state.pop("step"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged: {error}") from error
    weights = load_weights(folder / "weights.safetensors")
    return Checkpoint(step, weights, load_weights(folder / "optimizer.safetensors"), state)


def load_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a missing or truncated one raises CheckpointError."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {file} is damaged or missing: {error}") from error


def load_into(module: nn.Module, weights: dict[str, Tensor], origin: str, assign: bool = False) -> None:
    """Load weights, or say in one sentence how they differ from the module.

    Args:
        assign: whether the module takes these tensors, with their types, in place of copying into its own.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = module.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise CheckpointError(
            f"{origin} is of another architecture: it lacks {missing[0]!r} ({len(missing)} missing)"
        )
    if extra := sorted(weights.keys() - own.keys()):
        raise CheckpointError(
            f"{origin} is of another architecture: it has {extra[0]!r} ({len(extra)} unknown)"
        )
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise CheckpointError(
                f"{origin} is of another architecture: {name!r} is {tuple(weights[name].shape)} there, "
                f"{tuple(value.shape)} here"
            )
    module.load_state_dict(weights, assign=assign)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old or the new text, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
