"""What a model of timm starts from."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from imagen_fast.errors import CheckpointError
from imagen_fast.models import TimmBackbone
from imagen_fast.models.timm_backbone import timm_classifier, timm_pretrained
from imagen_fast.train import load_into

PRETRAINED = "pretrained"


def load_start(backbone: TimmBackbone, start: str) -> None:
    """Load timm's own pretrained weights, or those of a file, into a backbone.

    Args:
        start: `pretrained`; or a file, safetensors or PyTorch's, of weights under timm's names and for
            such images, with a classifier or without.

    Raises:
        InvalidInput: timm has no weights of the model.
        CheckpointError: they cannot be had, or are of another architecture.
    """
    if start == PRETRAINED:
        weights, origin = timm_pretrained(backbone.config), f"timm's {backbone.config.timm}"
    else:
        weights, origin = _of_file(start), start
        classifier = timm_classifier(backbone.config)
        weights = {name: value for name, value in weights.items() if not name.startswith(classifier)}
    load_into(backbone.network, weights, origin)


def _of_file(file: str) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    if not Path(file).is_file():
        raise CheckpointError(f"there is no file of weights {file}")
    try:
        return load_state_dict(file)
    except Exception as error:
        raise CheckpointError(f"{file} holds no weights that timm can read: {error}") from error
