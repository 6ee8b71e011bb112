"""What a pretraining starts from, where not from new weights."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from imagen_fast.errors import CheckpointError, InvalidInput, MissingPackage
from imagen_fast.models import TimmBackbone, VisionTransformer
from imagen_fast.models.convert import load_vit, load_vitmae
from imagen_fast.models.positions import resize_positions
from imagen_fast.models.timm_backbone import timm_classifier, timm_pretrained
from imagen_fast.tasks.backbone import WEIGHTS, load_backbone, read_json
from imagen_fast.tasks.folder import CONFIG, KINDS, load_folder
from imagen_fast.train import load_into, load_weights

PRETRAINED = "pretrained"
# In the published checkpoints of He et al. 2021 and in those of classifiers.
_NOT_OF_AN_ENCODER = ("head.", "decoder", "mask_token")


def resolved_start(start: str | None) -> str | None:
    """As a run keeps it: it may be resumed in another folder."""
    return start if start in (None, PRETRAINED) else str(Path(start).expanduser().resolve())


def load_timm_start(backbone: TimmBackbone, start: str) -> None:
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


def load_vit_start(encoder: VisionTransformer, start: str) -> None:
    """Load the weights of another vision transformer into an encoder of its shapes.

    Positions are resized to the grid. A norm after pooling, of a classifier, comes before it here.

    Args:
        start: a run, a folder that `save_pretrained` of transformers' ViT or ViTMAE or of our own models
            wrote, or a file, safetensors or PyTorch's, of weights under timm's names.

    Raises:
        InvalidInput: `pretrained`, since none come with ours.
        CheckpointError: there are none, or they are of another architecture.
    """
    if start == PRETRAINED:
        raise InvalidInput("no weights come with imagen_fast: start from a run, a folder or a file of them")
    weights = _of_folder(Path(start)) if Path(start).is_dir() else _of_file(start)
    weights = {
        n.replace("fc_norm.", "norm."): w for n, w in weights.items() if not n.startswith(_NOT_OF_AN_ENCODER)
    }
    if (table := weights.get("pos_embed")) is not None and table.shape != encoder.pos_embed.shape:
        side = math.isqrt(table.shape[1] - 1)
        if side * side == table.shape[1] - 1:  # of square images; all else is told below
            weights["pos_embed"] = resize_positions(table, (side, side), encoder.config.grid)
    load_into(encoder, weights, start)


def _of_folder(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).is_file():
        return load_backbone(folder)[0].state_dict()
    kind = read_json(folder / CONFIG).get("model_type")
    if kind == "vit_mae":
        return load_vitmae(folder).encoder.state_dict()
    if kind in KINDS and issubclass(KINDS[kind].model, VisionTransformer):
        return load_folder(folder, VisionTransformer)[0].state_dict()
    return load_vit(folder).state_dict()


def _of_file(file: str) -> dict[str, Tensor]:
    if not Path(file).is_file():
        raise CheckpointError(f"there is no file of weights {file}")
    if file.endswith(".safetensors"):
        return load_weights(Path(file))
    try:
        from timm.models import load_state_dict
    except ImportError as error:
        raise MissingPackage(
            f"reading {file} needs the package timm: pip install imagen-fast[timm]; a .safetensors does not"
        ) from error
    try:
        return load_state_dict(file)
    except Exception as error:
        raise CheckpointError(f"{file} holds no weights that timm can read: {error}") from error
