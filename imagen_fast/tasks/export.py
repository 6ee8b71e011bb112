"""A run's weights in the form that other libraries load."""

from __future__ import annotations

from pathlib import Path

import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.models import (
    Backbone,
    DecoderConfig,
    MaskedAutoencoder,
    TimmBackbone,
    TimmClassifier,
    VisionTransformer,
    ViTConfig,
)
from imagen_fast.models.convert import save_timm, save_vitmae
from imagen_fast.models.timm_backbone import timm_arguments
from imagen_fast.tasks.backbone import load_backbone, write_weights
from imagen_fast.tasks.classifier import ABOUT, Classifier
from imagen_fast.train import Run, load_checkpoint, load_into

FORMATS = ("timm", "vitmae")


def export(run: str | Path, format: str, out: str | Path) -> str:
    """Write the weights of a run.

    Args:
        format: `timm`: one safetensors file, of the backbone of a pretraining run or of a whole classifier;
            `vitmae`: a folder for transformers' ViTMAEForPreTraining, of a pretraining run with the mse loss
            and the full decoder.

    Returns:
        One sentence: what was written and how it is loaded.

    Raises:
        InvalidInput: an unknown format, or one that cannot express the model.
        CheckpointError: the folder holds no finished run.
    """
    if format not in FORMATS:
        raise InvalidInput(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    return _to_timm(Path(run), Path(out)) if format == "timm" else _to_vitmae(Path(run), Path(out))


def _to_timm(run: Path, out: Path) -> str:
    if (run / ABOUT).exists():
        classifier = Classifier(run, torch.device("cpu"))
        found: Backbone = classifier.model
        pool, classes = "avg", len(classifier.config.classes)
    else:
        found, pool, classes = load_backbone(run)[0], "token", 0
    if isinstance(found, TimmClassifier):
        raise InvalidInput(
            f"timm's {found.config.timm} has another classifier than {run}; export the pretraining run"
        )
    if isinstance(found, TimmBackbone):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_weights(out, found.network.state_dict())
        shape = ", ".join(f"{name}={value}" for name, value in timm_arguments(found.config).items())
        return (
            f"wrote {out}; load it with "
            f"timm.create_model({found.config.timm!r}, {shape}, checkpoint_path={str(out)!r})"
        )
    if not isinstance(found, VisionTransformer):
        raise InvalidInput(f"timm has no pixel transformer, and {run} holds one")
    save_timm(found, out)
    c = found.config
    shape = (
        f"img_size={c.image_size}, patch_size={c.patch_size}, in_chans={c.channels}, depth={c.depth}, "
        f"embed_dim={c.embed_dim}, num_heads={c.heads}, num_classes={classes}, global_pool={pool!r}"
    )
    return (
        f"wrote {out}; load it with timm.models.VisionTransformer({shape}) and safetensors.torch.load_model"
    )


def _to_vitmae(run: Path, out: Path) -> str:
    config = Run.open(run).config
    if config.get("kind") != "pretrain":
        raise InvalidInput(
            f"only a pretraining run can be written for ViTMAE, and {run} is a {config.get('kind')} run"
        )
    if "decoder" not in config:
        whose = "with the causal objective"
        if "timm" in config["encoder"]:
            whose = "as a model of timm"
        raise InvalidInput(f"ViTMAE is a masked autoencoder, and {run} was trained {whose}")
    if config["objective"]["loss"] != "mse":
        raise InvalidInput(
            f"ViTMAE predicts pixels, and {run} was trained with the {config['objective']['loss']} loss; "
            "the timm format takes its backbone"
        )
    model = MaskedAutoencoder(ViTConfig.from_dict(config["encoder"]), DecoderConfig(**config["decoder"]))
    weights = {
        name.removeprefix("model."): value
        for name, value in load_checkpoint(run).weights.items()
        if name.startswith("model.")
    }
    load_into(model, weights, str(run))
    save_vitmae(model, out, config["objective"]["mask_ratio"])
    return f"wrote {out}; load it with transformers.ViTMAEForPreTraining.from_pretrained({str(out)!r})"
