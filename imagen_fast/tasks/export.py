"""A run's weights in the form that other libraries load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

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
from imagen_fast.tasks.card import CARD, model_card, training_facts
from imagen_fast.tasks.classifier import ABOUT, Classifier
from imagen_fast.tasks.folder import CONFIG, labels, save_folder
from imagen_fast.tasks.generation import load_pixel_transformer
from imagen_fast.train import Run, load_checkpoint, load_into
from imagen_fast.train.checkpoint import write_atomically

FORMATS = ("timm", "vitmae", "hub")
CPU = torch.device("cpu")


def export(run: str | Path, format: str, out: str | Path) -> str:
    """Write the weights of a run.

    Args:
        format: `timm`: one safetensors file, of the backbone of a pretraining run or of a whole classifier;
            `vitmae`: a folder for transformers' ViTMAEForPreTraining, of a pretraining run with the mse loss
            and the full decoder;
            `hub`: a folder as the Hugging Face Hub keeps models, with a card, of any run: the backbone, the
            pixel transformer or the whole classifier.

    Returns:
        One sentence: what was written and how it is loaded.

    Raises:
        InvalidInput: an unknown format, or one that cannot express the model.
        CheckpointError: the folder holds no finished run.
    """
    if format not in FORMATS:
        raise InvalidInput(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    write = {"timm": _to_timm, "vitmae": _to_vitmae, "hub": _to_hub}[format]
    _refuse_place(format, Path(out))
    return write(Path(run), Path(out))


def _refuse_place(format: str, out: Path) -> None:
    if format == "timm":
        # timm reads what has another ending with pickle.
        if out.suffix != ".safetensors" or out.is_dir():
            raise InvalidInput(f"the timm format is one file that ends in .safetensors, not {out}")
        return
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"the {format} format is a folder, and {out} is a file")
    if format == "hub" and (out / CARD).exists() and not (out / CONFIG).exists():
        raise InvalidInput(f"{out} has a {CARD} of its own, which the card of the model would replace")


def model_of(run: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """What a run left, a backbone, a pixel transformer or a classifier, and what is known of it.

    Raises:
        CheckpointError: the folder holds no finished run.
    """
    run = Path(run)
    about: dict[str, Any] = {"training": training_facts(run)}
    if (run / ABOUT).exists():
        classifier = Classifier(run, CPU)
        return classifier.model, {**about, **labels(classifier.config.classes)}
    if Run.open(run).config.get("settings", {}).get("objective") == "causal":
        return load_pixel_transformer(run, CPU), about
    return load_backbone(run)[0], about


def load_autoencoder(run: str | Path) -> MaskedAutoencoder:
    """The whole model of a pretraining run that predicts pixels.

    Raises:
        InvalidInput: another kind of run.
        CheckpointError: the folder holds no run.
    """
    config = Run.open(run).config
    if config.get("kind") != "pretrain":
        raise InvalidInput(
            f"only a pretraining run holds a masked autoencoder, and {run} is a {config.get('kind')} run"
        )
    if "decoder" not in config:
        whose = "as a model of timm" if "timm" in config["encoder"] else "with the causal objective"
        raise InvalidInput(f"{run} was trained {whose}, without a masked autoencoder")
    if config["objective"]["loss"] != "mse":
        raise InvalidInput(
            f"only a masked autoencoder that predicts pixels can be written, and {run} was trained with the "
            f"{config['objective']['loss']} loss; the timm and hub formats take its backbone"
        )
    model = MaskedAutoencoder(ViTConfig.from_dict(config["encoder"]), DecoderConfig(**config["decoder"]))
    weights = {
        name.removeprefix("model."): value
        for name, value in load_checkpoint(Path(run)).weights.items()
        if name.startswith("model.")
    }
    load_into(model, weights, str(run))
    return model


def _to_timm(run: Path, out: Path) -> str:
    if (run / ABOUT).exists():
        classifier = Classifier(run, CPU)
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
        shape = "".join(f"{name}={value}, " for name, value in timm_arguments(found.config).items())
        # So it loads with a new head for another num_classes, too.
        weights = f"pretrained=True, pretrained_cfg_overlay={{'file': {str(out)!r}}}"
        return f"wrote {out}; load it with timm.create_model({found.config.timm!r}, {shape}{weights})"
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
    save_vitmae(load_autoencoder(run), out, Run.open(run).config["objective"]["mask_ratio"])
    return f"wrote {out}; load it with transformers.ViTMAEForPreTraining.from_pretrained({str(out)!r})"


def _to_hub(run: Path, out: Path) -> str:
    model, about = model_of(run)
    if isinstance(model, TimmBackbone | TimmClassifier):
        raise InvalidInput(
            f"the hub format is for our own models, and {run} holds timm's {model.config.timm}; "
            "the timm format takes its backbone"
        )
    values = save_folder(model, out, about)
    write_atomically(out / CARD, model_card(values, sum(p.numel() for p in model.parameters())))
    name = type(model).__name__
    return f"wrote {out}; load it with imagen_fast.integrations.hub.{name}.from_pretrained({str(out)!r})"
