"""The backbone by itself: what pretraining leaves for every task after it.

`encoder.safetensors` holds float32 weights (of vision transformers and of models of timm under timm's names),
`encoder.json` the shapes and the statistics of the data it was trained on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from imagen_fast.errors import CheckpointError
from imagen_fast.models import Backbone, TimmBackbone, backbone_config, build_backbone
from imagen_fast.train import load_into, load_weights
from imagen_fast.train.checkpoint import write_atomically

Statistics = tuple[float, ...]
"""One value a channel, on the scale 0..1."""

WEIGHTS, SHAPES = "encoder.safetensors", "encoder.json"


def save_backbone(folder: str | Path, backbone: Backbone, mean: Statistics, std: Statistics) -> Path:
    """Write the backbone without its head; returns the file of its weights."""
    folder = Path(folder)
    if isinstance(backbone, TimmBackbone):
        weights = backbone.network.state_dict()
    else:
        state = backbone.state_dict()
        weights = {name: value for name, value in state.items() if not name.startswith("head.")}
    config = backbone.config
    about = {"config": config.to_dict(), "mean": mean, "std": std, "channels": config.channels}
    write_weights(folder / WEIGHTS, weights)
    write_atomically(folder / SHAPES, json.dumps(about, indent=2) + "\n")
    return folder / WEIGHTS


def load_backbone(path: str | Path) -> tuple[Backbone, Statistics, Statistics]:
    """The backbone of a run's folder (or of its `encoder.safetensors`), with the mean and std of its data.

    Raises:
        CheckpointError: it is missing or damaged, or the weights are of another architecture.
    """
    file = Path(path) / WEIGHTS if Path(path).suffix != ".safetensors" else Path(path)
    if not file.is_file():
        raise CheckpointError(f"{path} holds no pretrained backbone: {file} does not exist")
    about = read_json(file.with_name(SHAPES))
    try:
        config = backbone_config(about["config"])
        mean, std = tuple(about["mean"]), tuple(about["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file.with_name(SHAPES)} describes no backbone: {error}") from error
    backbone = build_backbone(config)
    named = backbone.network if isinstance(backbone, TimmBackbone) else backbone
    load_into(named, load_weights(file), str(file))
    return backbone, mean, std


def write_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace a safetensors file by float32 weights: a reader sees the old or the new ones, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    # Counters, as batch norms have them, stay whole numbers.
    wide = {
        name: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in weights.items()
    }
    save_file(wide, partial, metadata={"format": "pt", **(metadata or {})})
    os.replace(partial, path)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object that a run wrote; raises CheckpointError where it is missing or damaged."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or missing: {error}") from error
