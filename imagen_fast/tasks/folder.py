"""A model as a folder of its own, as the Hugging Face Hub keeps models; nothing of Hugging Face is needed.

`config.json` says what the model is: its shapes, its classes, and what is known of its training.
`model.safetensors` holds the weights in the type they have, under our names (timm's, of a vision
transformer). Where the statistics of the training data are known, `preprocessor_config.json` brings pictures
to a vision transformer in transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imagen_fast import __version__
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import (
    DecoderConfig,
    MaskedAutoencoder,
    PixelClassifier,
    PixelConfig,
    PixelTransformer,
    VisionTransformer,
    ViTConfig,
)
from imagen_fast.tasks.backbone import read_json
from imagen_fast.train import load_into, load_weights
from imagen_fast.train.checkpoint import write_atomically

M = TypeVar("M", bound=nn.Module)

CONFIG, FOLDER_WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
# What the configuration has beside shapes: said by whoever saves the model, and kept when it is saved again.
ABOUT = ("id2label", "label2id", "training")


@dataclass(frozen=True)
class Kind:
    """A kind of model that has such a folder.

    Attributes:
        model: its class.
        shapes: the fields of the configuration that a model has by itself.
        arguments: what the class is called with, from those fields.
    """

    model: type[nn.Module]
    shapes: Callable[[Any], dict[str, Any]]
    arguments: Callable[[dict[str, Any]], dict[str, Any]]


def _vit(values: dict[str, Any]) -> ViTConfig:
    return ViTConfig.from_dict({f.name: values[f.name] for f in fields(ViTConfig)})


def _sizes(model: VisionTransformer) -> dict[str, Any]:
    """Of images other than its own, where it takes them."""
    sizes = model.patch_embed.sizes
    return {} if sizes == "fixed" else {"sizes": sizes}


def labels(classes: tuple[str, ...]) -> dict[str, Any]:
    """The names of classes, as transformers writes them down."""
    return {
        "id2label": {str(number): name for number, name in enumerate(classes)},
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def classes_of(model: Any) -> int:
    """Of a classifier's head, whatever it was made with; 0 without one."""
    return getattr(getattr(model, "head", None), "out_features", 0)


def _unnamed(count: int) -> dict[str, Any]:
    return labels(tuple(f"LABEL_{number}" for number in range(count))) if count else {}


KINDS = {
    "imagen_fast_vit": Kind(
        VisionTransformer,
        lambda model: {
            **model.config.to_dict(),
            **_sizes(model),
            **_unnamed(classes_of(model)),
        },
        lambda values: {
            "config": _vit(values),
            "num_classes": len(values.get("id2label", ())),
            "sizes": values.get("sizes", "fixed"),
        },
    ),
    "imagen_fast_mae": Kind(
        MaskedAutoencoder,
        lambda model: {
            "encoder": model.encoder.config.to_dict(),
            "decoder": model.decoder.config.to_dict(),
            "outputs": _outputs(model),
        },
        lambda values: {
            "encoder": _vit(values["encoder"]),
            "decoder": DecoderConfig(**values["decoder"]),
            "outputs": values["outputs"],
        },
    ),
    "imagen_fast_pixel_transformer": Kind(
        PixelTransformer,
        lambda model: model.config.to_dict(),
        lambda values: {"config": PixelConfig.from_dict(values)},
    ),
    "imagen_fast_pixel_classifier": Kind(
        PixelClassifier,
        lambda model: {**model.config.to_dict(), **_unnamed(model.head.out_features)},
        lambda values: {"config": PixelConfig.from_dict(values), "num_classes": len(values["id2label"])},
    ),
}
"""By the `model_type` of the configuration."""


def _outputs(model: MaskedAutoencoder) -> int:
    if not isinstance(model.decoder.pred, nn.Linear):
        raise InvalidInput(
            "only a masked autoencoder that predicts the pixels of a patch has a folder of its own; "
            "the encoder of every other has one"
        )
    return model.decoder.pred.out_features


def describe(model: nn.Module, about: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model.

    Args:
        about: more of it, see `ABOUT`.

    Raises:
        InvalidInput: a kind of model that has no folder, or one that has been changed since it was made.
    """
    for name, kind in KINDS.items():
        if isinstance(model, kind.model):
            shapes = kind.shapes(model)
            _refuse_unlike(model, kind, shapes)
            if len(about.get("id2label", ())) != classes_of(model):  # they were of another head
                about = {key: value for key, value in about.items() if key not in ("id2label", "label2id")}
            return {"model_type": name, "imagen_fast_version": __version__, **shapes, **about}
    known = ", ".join(kind.model.__name__ for kind in KINDS.values())
    raise InvalidInput(f"a folder of its own is for {known}, not for a {type(model).__name__}")


def _refuse_unlike(model: nn.Module, kind: Kind, shapes: dict[str, Any]) -> None:
    """What the configuration makes would not take the weights, or compute something else with them."""
    if isinstance(model, VisionTransformer):
        # One of timm's registry may pool or norm in other ways.
        pool, token = model.config.pool, model.config.pool == "token"
        norms = isinstance(model.norm, nn.Identity), isinstance(model.fc_norm, nn.Identity)
        if norms != (not token, token) or getattr(model, "global_pool", pool) != pool:
            raise InvalidInput("the model pools its tokens as no configuration of ours says")
        if len(model.blocks) != model.config.depth:
            raise InvalidInput(
                f"the model has {len(model.blocks)} blocks, and its configuration {model.config.depth}"
            )
    with torch.device("meta"):
        made = kind.model(**kind.arguments(shapes))
    has, wanted = ({n: w.shape for n, w in m.state_dict().items()} for m in (model, made))
    # Another head, adapters, layers that were taken away.
    if odd := sorted(name for name in has.keys() | wanted.keys() if has.get(name) != wanted.get(name)):
        raise InvalidInput(f"the model has been changed since it was made: {odd[0]!r} is not as it was")


def save_folder(model: nn.Module, folder: str | Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write the model; returns its configuration."""
    values = describe(model, about)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / FOLDER_WEIGHTS, metadata={"format": "pt"})
    write_atomically(folder / CONFIG, json.dumps(values, indent=2) + "\n")
    training = values.get("training", {})
    if isinstance(model, VisionTransformer) and "mean" in training:
        view = _preprocessor(model.config, training)
        write_atomically(folder / PREPROCESSOR, json.dumps(view, indent=2) + "\n")
    return values


def load_folder(folder: str | Path, model: type[M]) -> tuple[M, dict[str, Any]]:
    """The model of a folder, ready for inference, and its configuration.

    A folder that `save_pretrained` of `integrations.transformers_backbone` wrote is one too.

    Args:
        model: the class that is wanted: of a kind in `KINDS`, or derived from one.

    Raises:
        CheckpointError: the folder holds none, or another kind, or what it holds does not go together.
    """
    file = Path(folder) / CONFIG
    values = read_json(file)
    kind = KINDS.get(values.get("model_type", ""))
    if kind is None:
        raise CheckpointError(f"{file} describes no model of imagen_fast, but a {values.get('model_type')!r}")
    if not issubclass(model, kind.model):
        raise CheckpointError(f"{folder} holds a {kind.model.__name__}, not a {model.__name__}")
    file_of_weights = Path(folder) / FOLDER_WEIGHTS
    if file_of_weights.with_name(f"{FOLDER_WEIGHTS}.index.json").exists():
        raise CheckpointError(f"{folder} holds its weights in several files; one, {FOLDER_WEIGHTS}, is read")
    weights = load_weights(file_of_weights)
    if kind.model is VisionTransformer:
        weights, values = _as_ours(weights, values)
    try:
        arguments = kind.arguments(values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} describes no {kind.model.__name__}: {error}") from error
    made = model(**arguments)
    load_into(made, weights, str(file_of_weights), assign=True)
    return made.eval(), values


def _as_ours(weights: dict[str, Tensor], values: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """transformers' classes of our model hold it as `vit`, and take images of any size.

    They do not write down classes without a name, and those of a head that is not there.
    """
    if not all(name.startswith("vit.") for name in weights):
        return weights, values
    weights = {name.removeprefix("vit."): value for name, value in weights.items()}
    classes = len(weights["head.weight"]) if "head.weight" in weights else 0
    if len(values.get("id2label", ())) != classes:
        values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
        values |= _unnamed(classes)
    padded = any(name.endswith("Backbone") for name in values.get("architectures") or ())
    return weights, {"sizes": "padded" if padded else "divisible", **values}


def _preprocessor(config: ViTConfig, training: dict[str, Any]) -> dict[str, Any]:
    """The view of `CenterCrop`, as transformers describes one (its image processor for BiT, as DINOv2's)."""
    height, width = config.image_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": config.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": int(max(height, width) / training["crop"])},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": training["mean"],
        "image_std": training["std"],
    }
