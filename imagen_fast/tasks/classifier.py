"""A trained classifier by itself: what fine-tuning leaves for prediction and export.

`classifier.json` says what the model is and how an image is brought to it, `best.safetensors` holds the
float32 weights of the best evaluation so far, with its step and accuracy among the metadata: one file, so the
weights and their figures are never of two evaluations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imagen_fast.data import Batch
from imagen_fast.errors import CheckpointError
from imagen_fast.models import BackboneConfig, backbone_config, build_classifier
from imagen_fast.objectives.pixels import inputs_of
from imagen_fast.tasks.backbone import read_json, write_weights
from imagen_fast.train import load_into, load_weights
from imagen_fast.train.checkpoint import write_atomically

ABOUT, BEST = "classifier.json", "best.safetensors"


@dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier is.

    Args:
        mean, std: of the pixels, per channel on the scale 0..1.
        crop: the evaluation's view: the shorter side resized to image size / `crop`, then the central square.
    """

    backbone: BackboneConfig
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float

    def save(self, folder: Path) -> None:
        about = {**asdict(self), "backbone": self.backbone.to_dict()}
        write_atomically(folder / ABOUT, json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ClassifierConfig:
        if not (folder / ABOUT).is_file():
            raise CheckpointError(f"{folder} holds no classifier: {folder / ABOUT} does not exist")
        about = read_json(folder / ABOUT)
        try:
            backbone = backbone_config(about["backbone"])
            classes, mean, std = (tuple(about[name]) for name in ("classes", "mean", "std"))
            return cls(backbone, classes, mean, std, float(about["crop"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / ABOUT} describes no classifier: {error}") from error


def save_best(folder: Path, weights: dict[str, Tensor], step: int, accuracy: float) -> None:
    """Keep these weights as the best so far, atomically."""
    write_weights(folder / BEST, weights, {"step": str(step), "accuracy": repr(accuracy)})


def best_so_far(folder: Path) -> tuple[int, float]:
    """(step, accuracy) of the weights that are kept; (0, -1.0) where there are none."""
    if not (folder / BEST).exists():
        return 0, -1.0
    try:
        with safe_open(folder / BEST, "pt") as file:
            about: dict[str, Any] = file.metadata() or {}
        return int(about["step"]), float(about["accuracy"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder / BEST} is damaged: {error}") from error


class Classifier:
    """A finished classifier, in float32, for inference."""

    def __init__(self, folder: str | Path, device: torch.device) -> None:
        """Load the best weights of a run.

        Raises:
            CheckpointError: the folder holds no classifier, or a damaged one.
        """
        folder = Path(folder)
        self.config = ClassifierConfig.load(folder)
        self.model = build_classifier(self.config.backbone, len(self.config.classes))
        load_into(self.model, load_weights(folder / BEST), str(folder / BEST))
        self.model.to(device).eval()
        self.normalize = inputs_of(self.config.backbone, self.config.mean, self.config.std).to(device)
        self.device = device

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 [B, classes] on the CPU."""
        return self.model(self.normalize(images.to(self.device))).float().softmax(1).cpu()

    def judge(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """The true and the predicted labels, int64 [n] each, of labelled batches."""
        truth, predicted = [], []
        for batch in batches:
            assert batch.labels is not None
            truth.append(batch.labels)
            predicted.append(self.probabilities(batch.images).argmax(1))
        return torch.cat(truth), torch.cat(predicted)
