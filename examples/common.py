"""What the examples share, so that each shows its trainer alone: options, images, models from configs."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from transformers import (
    AutoImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

# What learns the digits on a laptop within a minute, and ViT-S/16.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {
        "image_size": 32,
        "patch_size": 4,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    "small": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
    },
}
DECODERS: dict[str, dict[str, int]] = {
    "tiny": {
        "decoder_hidden_size": 64,
        "decoder_intermediate_size": 256,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 2,
    },
    "small": {},
}
MEAN = STD = (0.5, 0.5, 0.5)


def parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("task", choices=["finetune", "pretrain"])
    parser.add_argument("--data", help="folder of images, a subfolder a class; scikit-learn's digits without")
    parser.add_argument(
        "--model", default="tiny", help=f"{' or '.join(SIZES)}, or a folder or name on the hub"
    )
    parser.add_argument("--steps", type=int, default=200, help="updates of the weights")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--out", type=Path, default=Path("runs/example"), help="folder for what is trained")
    parser.add_argument("--losses", type=Path, help="file for the loss of each step, a line each")
    parser.add_argument("--original", action="store_true", help="without imagen_fast")
    return parser


class Digits(Dataset):
    """scikit-learn's handwritten digits, 8 x 8, in the manner of torchvision's data sets."""

    def __init__(self, transform: Callable[[Image.Image], Tensor] | None = None) -> None:
        digits = load_digits()
        self.images = (digits.images * (255 / 16)).astype("uint8")
        self.labels = digits.target.tolist()
        self.classes = [str(name) for name in digits.target_names]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index]).convert("RGB")
        return self.transform(image) if self.transform else image, self.labels[index]


def images(options: argparse.Namespace) -> Any:
    """(image, label), with `classes`, and a `transform` that is to be set."""
    dataset = ImageFolder(options.data) if options.data else Digits()
    if len(dataset) < options.batch_size:
        raise SystemExit(f"{len(dataset)} images are fewer than --batch-size {options.batch_size}")
    return dataset


def transform(
    size: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> Callable[[Image.Image], Tensor]:
    crop = transforms.RandomResizedCrop(size, scale=(0.5, 1.0))
    return transforms.Compose([crop, transforms.ToTensor(), transforms.Normalize(mean, std)])


def hugging_face(options: argparse.Namespace) -> tuple[Any, Any]:
    """transformers' model for the task, and the images at its size."""
    dataset = images(options)
    if options.task == "finetune":
        names = {"id2label": dict(enumerate(dataset.classes))}
        if options.model in SIZES:
            model = ViTForImageClassification(ViTConfig(**SIZES[options.model], **names))
        else:
            model = ViTForImageClassification.from_pretrained(
                options.model, **names, ignore_mismatched_sizes=True
            )
    elif options.model in SIZES:
        sizes = SIZES[options.model] | DECODERS[options.model]
        model = ViTMAEForPreTraining(ViTMAEConfig(**sizes, norm_pix_loss=True))
        # transformers leaves zeros in place of the decoder's positions, which are not learned.
        model.decoder.initialize_weights(model.vit.embeddings.position_embeddings.shape[1] - 1)
    else:
        model = ViTMAEForPreTraining.from_pretrained(options.model)
    dataset.transform = transform(model.config.image_size, *normalisation(options, model))
    return model, dataset


def normalisation(options: argparse.Namespace, model: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that a pretrained model was trained with, where it comes with them."""
    if options.model in SIZES:
        return MEAN, STD
    if (timms := getattr(model, "pretrained_cfg", None)) is not None:
        return timms["mean"], timms["std"]
    try:
        processor = AutoImageProcessor.from_pretrained(options.model)
    except OSError:  # a folder of weights alone, as these examples leave
        return MEAN, STD
    return processor.image_mean, processor.image_std


def timm_classifier(options: argparse.Namespace, classes: int) -> Any:
    if options.model not in SIZES:
        return timm.create_model(options.model, pretrained=True, num_classes=classes)
    size = SIZES[options.model]
    return timm.create_model(
        "vit_small_patch16_224",
        num_classes=classes,
        img_size=size["image_size"],
        patch_size=size["patch_size"],
        embed_dim=size["hidden_size"],
        depth=size["num_hidden_layers"],
        num_heads=size["num_attention_heads"],
    )


def collate(task: str) -> Callable[[list[tuple[Tensor, int]]], dict[str, Tensor]]:
    """A batch by the names that transformers' models of the task take."""

    def batch(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        pixels, labels = zip(*samples, strict=True)
        batch = {"pixel_values": torch.stack(pixels)}
        return batch | {"labels": torch.tensor(labels)} if task == "finetune" else batch

    return batch


def batches(loader: Iterable[Any], steps: int) -> Iterator[Any]:
    """So many, through as many epochs as that takes."""
    return itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps)


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights that decay, and biases and norms that do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def write_losses(options: argparse.Namespace, losses: list[float]) -> None:
    if options.losses:
        options.losses.write_text("".join(f"{loss!r}\n" for loss in losses))
