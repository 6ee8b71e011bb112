"""Classes for new images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imagen_fast.data import CenterCrop, FolderSource, decode_batch
from imagen_fast.errors import InvalidInput
from imagen_fast.tasks.classifier import Classifier
from imagen_fast.train import choose_device


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image with their probabilities, the likeliest first."""

    path: str
    classes: list[tuple[str, float]]


@dataclass(frozen=True)
class Predictions:
    """In the order of the images given; `failed` names those that could not be read: (path, reason)."""

    predictions: list[Prediction]
    failed: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def predict(
    run: str | Path,
    images: Iterable[str | Path],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    device: str | None = None,
) -> Predictions:
    """Classify image files, and all images of folders, with the best weights of a classification run.

    Raises:
        CheckpointError: `run` holds no classifier.
        DataError: a folder without images.
        InvalidInput: `top_k` or `batch_size` below 1, or no such device.
    """
    if top_k < 1 or batch_size < 1:
        raise InvalidInput(f"top k and the batch size must be at least 1, not {top_k} and {batch_size}")
    classifier = Classifier(run, choose_device(device))
    config = classifier.config
    backbone = config.backbone
    found = read_images(
        images, CenterCrop(config.crop), backbone.image_size[0], backbone.channels, batch_size
    )
    result = Predictions([], [])
    while part := list(islice(found, batch_size)):
        good = [(path, pixels) for path, pixels in part if not isinstance(pixels, str)]
        result.failed.extend((str(path), why) for path, why in part if isinstance(why, str))
        if not good:
            continue
        stacked = torch.from_numpy(np.stack([pixels for _, pixels in good]))
        best = classifier.probabilities(stacked).topk(min(top_k, len(config.classes)), dim=1)
        for (path, _), values, labels in zip(good, best.values.tolist(), best.indices.tolist(), strict=True):
            named = [(config.classes[c], value) for c, value in zip(labels, values, strict=True)]
            result.predictions.append(Prediction(str(path), named))
    return result


def read_images(
    images: Iterable[str | Path], view: CenterCrop, side: int, channels: int, ahead: int = 64
) -> Iterator[tuple[Path, np.ndarray | str]]:
    """Of each file, and each image of each folder, its pixels uint8 [C, H, W], or why they cannot be read.

    Args:
        ahead: files that are read at a time, and decoded by several threads.
    """
    paths = _files(images)
    while part := list(islice(paths, ahead)):
        reasons: dict[Path, str] = {}
        read: list[tuple[Path, bytes]] = []
        for path in part:
            try:
                read.append((path, path.read_bytes()))
            except OSError as error:
                reasons[path] = error.strerror or str(error)
        made = decode_batch(
            [data for _, data in read], view, side, dtype=torch.uint8, channels=channels, filter="bicubic"
        )
        pixels = {path: made.pixels[i].numpy() for i, (path, _) in enumerate(read)}
        reasons |= {read[i][0]: reason for i, reason in made.failed.items()}
        yield from ((path, reasons.get(path, pixels.get(path, ""))) for path in part)


def _files(images: Iterable[str | Path]) -> Iterator[Path]:
    for image in map(Path, images):
        if image.is_dir():
            source = FolderSource.scan(image)
            yield from (source.root / name for name in source.files)
        else:
            yield image
