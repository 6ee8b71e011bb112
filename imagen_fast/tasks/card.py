"""The card of a model: what it is, how it is used, what it was trained on as far as that is known."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from imagen_fast.data import EMBEDDED
from imagen_fast.data.augment import CenterCrop
from imagen_fast.tasks.backbone import SHAPES, read_json
from imagen_fast.tasks.classification import SCRATCH
from imagen_fast.tasks.classifier import ABOUT as CLASSIFIER
from imagen_fast.tasks.classifier import ClassifierConfig
from imagen_fast.tasks.folder import CONFIG, KINDS, PREPROCESSOR
from imagen_fast.tasks.papers import PAPERS
from imagen_fast.tasks.pretrain import KIND as PRETRAINING
from imagen_fast.tasks.session import data_title
from imagen_fast.tasks.settings import OBJECTIVES, PretrainSettings
from imagen_fast.train import Run

CARD = "README.md"
EVALUATION = "evaluation.json"
LICENSE = "apache-2.0"
SHOWN = 20  # classes

# By the class of the model.
_TASKS = {"PixelTransformer": "unconditional-image-generation"}
_TAGS = {
    "VisionTransformer": ("vision-transformer",),
    "MaskedAutoencoder": ("vision-transformer", "masked-autoencoder"),
    "PixelTransformer": ("autoregressive",),
    "PixelClassifier": ("autoregressive",),
}
_SELF_SUPERVISED = "self-supervised-learning"
_CALLS = {
    "VisionTransformer": "features = model(images)",
    "MaskedAutoencoder": "features = model.encoder(images)",
    "PixelTransformer": "features = model.mean_features(images)",
}
_BACKBONE = ("AutoBackbone", ", out_indices=[-1]")
_MORE = {
    "PixelTransformer": (
        "from imagen_fast.models.sampling import generate",
        "",
        "drawn = model.symbols.images(generate(model, 4))  # uint8 [4, C, H, W]",
    ),
}

# Settings that say what a training was, in the words of the card.
_SETTINGS = {
    "objective": "objective",
    "loss": "loss",
    "mask": "mask",
    "mask_ratio": "share of patches that are hidden",
    "decoder": "decoder",
    "context": "context of a prediction",
    "radius": "radius of the context, in tokens",
    "palette": "colours of the palette",
    "mode": "weights that were trained",
    "image_size": "side of the images, in pixels",
    "steps": "steps",
    "batch_size": "images a step",
    "lr": "peak learning rate",
    "weight_decay": "weight decay",
    "drop_path": "stochastic depth of the last block",
    "label_smoothing": "label smoothing",
    "holdout": "share of the images that training never saw",
    "precision": "precision",
    "seed": "seed",
}
_FIGURES = {
    "knn": "accuracy of k nearest neighbours on the features",
    "linear": "accuracy of a linear probe on the features",
    "accuracy": "accuracy, of the weights that were best on these images",
    "bits_per_dim": "bits per dimension",
    "bits_per_dim_independent": "the same where every pixel is by itself",
    "bits_per_dim_uniform": "the same of uniform pixels",
    "train_images": "images that the classifier of a figure was fitted on",
    "heldout_images": "images that the figures are of",
}


def training_facts(run: str | Path) -> dict[str, Any]:
    """What the folder of a run says of a training; of the data their name only, not where they lie.

    Raises:
        CheckpointError: it is the folder of no finished run.
    """
    run = Path(run)
    config = Run.open(run).config
    settings = config.get("settings", {})
    objectives = {f.name: f.metadata["of"] for f in fields(PretrainSettings)}
    objective = settings.get("objective", OBJECTIVES[0])
    facts: dict[str, Any] = {
        "imagen_fast_version": config.get("imagen_fast"),
        "kind": config.get("kind"),
        "data": data_title(settings["data"]),
        "images": config.get("images"),
        "settings": {
            name: settings[name]
            for name in _SETTINGS
            if settings.get(name) is not None and objective in objectives.get(name, OBJECTIVES)
        },
    }
    if (run / CLASSIFIER).exists():
        about = ClassifierConfig.load(run)
        facts |= {"mean": about.mean, "std": about.std, "crop": about.crop}
        facts["began"] = settings["from_run"] != SCRATCH
        if facts["began"] and (Path(settings["from_run"]) / "run.json").exists():
            facts["before"] = training_facts(settings["from_run"])
    else:
        shapes = read_json(run / SHAPES)
        crop = 1.0 if settings["data"] in EMBEDDED else CenterCrop().share
        facts |= {"mean": shapes["mean"], "std": shapes["std"], "crop": crop}
    if (run / EVALUATION).exists():
        facts["evaluation"] = read_json(run / EVALUATION)
    return facts


def model_card(
    values: dict[str, Any], parameters: int, name: str | None = None, license: str = LICENSE
) -> str:
    """The card of a model, in Markdown.

    Args:
        values: its configuration, see `imagen_fast.tasks.folder`.
        parameters: how many it has.
        name: on the Hub, `user/name`.
        license: as the Hub writes it.
    """
    kind = KINDS[values["model_type"]].model.__name__
    where = name or "user/name"
    classes = values.get("id2label")
    task = "image-classification" if classes else _TASKS.get(kind, "image-feature-extraction")
    tags = ["imagen_fast", *_TAGS[kind], "pytorch_model_hub_mixin", "model_hub_mixin"]
    training = values.get("training") or {}
    if training.get("before", training).get("kind") == PRETRAINING:
        tags.insert(1, _SELF_SUPERVISED)
    head = ["---", "library_name: imagen_fast", f"license: {license}", f"pipeline_tag: {task}", "tags:"]
    head += [*(f"- {tag}" for tag in tags), "---", ""]
    parts = [
        "\n".join(head),
        f"# {name or kind}\n\n{_what(values, parameters)}",
        _use(values, kind, where),
        _training(training),
        "## Not known\n\nWhere the pictures came from, who and what they show, under which licence they were "
        "published, and what the model does on others is known to whoever trained it, and not written here.",
        "## Citation\n\n```bibtex\n" + "\n".join(PAPERS[paper] for paper in _papers(values, kind)) + "\n```",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _what(values: dict[str, Any], parameters: int) -> str:
    shapes = values.get("encoder", values)
    height, width = shapes["image_size"]
    side, channels = shapes["patch_size"], shapes["channels"]
    sizes = (
        f"{shapes['depth']} blocks, width {shapes['embed_dim']}, {shapes['heads']} heads; images of "
        f"{height}x{width} pixels and {channels} channel{'s' if channels > 1 else ''}, a token for every "
        f"{side}x{side} pixels; {parameters / 1e6:.1f} M parameters"
    )
    said = {
        "imagen_fast_vit": "A vision transformer",
        "imagen_fast_mae": f"A masked autoencoder with the {values.get('decoder', {}).get('kind')} decoder",
        "imagen_fast_pixel_transformer": "A transformer that predicts images pixel by pixel",
        "imagen_fast_pixel_classifier": "A classifier on a transformer of pixels",
    }[values["model_type"]]
    classes = list(values.get("id2label", {}).values())
    if not classes:
        return f"{said}: {sizes}."
    more = f" and {len(classes) - SHOWN} more, in {CONFIG}" if len(classes) > SHOWN else ""
    return f"{said}: {sizes}.\n\n{len(classes)} classes: {', '.join(classes[:SHOWN])}{more}."


def _use(values: dict[str, Any], kind: str, where: str) -> str:
    training = values.get("training", {})
    normalised = "uint8" if kind.startswith("Pixel") else "normalised as below"
    call = "logits = model(images)" if values.get("id2label") else _CALLS[kind]
    lines = [
        "## Use",
        "",
        "```python",
        f"from imagen_fast.integrations.hub import {kind}",
        "",
        f'model = {kind}.from_pretrained("{where}")  # or the folder of this card',
        f"{call}  # images: [B, C, H, W], {normalised}",
        *_MORE.get(kind, ()),
        "```",
    ]
    if kind == "VisionTransformer":
        auto, more = ("AutoModelForImageClassification", "") if values.get("id2label") else _BACKBONE
        lines += [
            "",
            "The same files in transformers:",
            "",
            "```python",
            "import imagen_fast.integrations.transformers_backbone",
            f"from transformers import {auto}{', AutoImageProcessor' if 'mean' in training else ''}",
            "",
            f'model = {auto}.from_pretrained("{where}"{more})',
        ]
        if "mean" in training:
            lines.append(f'processor = AutoImageProcessor.from_pretrained("{where}")  # {PREPROCESSOR}')
        lines.append("```")
    if normalised != "uint8":
        lines += ["", _normalisation(training)]
    return "\n".join(lines)


def _normalisation(training: dict[str, Any]) -> str:
    if "mean" not in training:
        return "How the pixels are to be normalised is not known: the model was saved without its run."
    mean, std = (", ".join(f"{value:.6g}" for value in training[name]) for name in ("mean", "std"))
    return f"Pixels on the scale 0..1 are normalised by channel: mean {mean}, standard deviation {std}."


def _training(training: dict[str, Any]) -> str:
    if not training:
        return "## Training\n\nNot known: the model was saved without its run."
    text = "## Training\n\n" + _facts(training)
    if training["kind"] == PRETRAINING:
        return text
    if "before" in training:
        before = _facts(training["before"])
    else:
        before = "Not known: its run is no longer there." if training["began"] else "It was new."
    return f"{text}\n\n### The backbone before\n\n{before}"


def _facts(training: dict[str, Any]) -> str:
    rows = [("data", training["data"]), ("images", training["images"])]
    rows += [(_SETTINGS[name], value) for name, value in training["settings"].items()]
    rows.append(("imagen_fast", training["imagen_fast_version"]))
    found = training.get("evaluation", {})
    rows += [(words, found[name]) for name, words in _FIGURES.items() if name in found]
    shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for _, value in rows)
    return "\n".join(
        [
            "| | |",
            "| --- | --- |",
            *(f"| {words} | {value} |" for (words, _), value in zip(rows, shown, strict=True)),
        ]
    )


def _papers(values: dict[str, Any], kind: str) -> list[str]:
    """The papers that the model rests on, as far as it is known how it came about."""
    found = ["igpt"] if kind.startswith("Pixel") else ["vit"]
    training = values.get("training") or {}
    for part in (training, training.get("before") or {}):
        settings = part.get("settings", {})
        if settings.get("objective") in ("masked", "joint"):
            found.append("mae")
        if settings.get("objective") == "joint":
            found.append("aim")
        if settings.get("decoder") == "cross":
            found.append("crossmae")
    if kind == "MaskedAutoencoder":
        found.append("mae")
        if values["decoder"]["kind"] == "cross":
            found.append("crossmae")
    return list(dict.fromkeys(found))
