"""FFCV: a data set rewritten as its one file of arrays and JPEGs, read by threads of compiled code."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from PIL import Image

from imagen_fast.benchmarks.peers.data_loaders import MEAN, STD, Passes, Work

# The highest that the corpus has. Its writer takes pixels only: a JPEG of its file is never the one that was
# given, whatever its mode is, and `raw` leaves nothing to decode.
QUALITY = 95
FACTS = {"files": f"JPEGs coded anew, quality {QUALITY}"}


def loader(work: Work) -> Passes:
    """Its loader with the transforms that its ImageNet example has, and float32 as the others.

    The file is written before anything is timed, as its user writes it once.
    """
    from ffcv import transforms
    from ffcv.fields import decoders
    from ffcv.loader import Loader, OrderOption

    image = [
        decoders.RandomResizedCropRGBImageDecoder((work.side, work.side), work.scale, work.ratio),
        transforms.RandomHorizontalFlip(work.flip),
        transforms.NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32),
        transforms.ToTensor(),
        transforms.ToTorchImage(),
    ]
    number = [decoders.IntDecoder(), transforms.ToTensor(), transforms.Squeeze()]
    order = OrderOption.RANDOM if work.shuffle else OrderOption.SEQUENTIAL
    batches = Loader(
        str(_written(work.files)),
        work.batch,
        work.workers,
        order=order,
        drop_last=False,
        pipelines={"image": image, "number": number},
    )
    return lambda: batches


class _Pixels:
    """What its writer takes: images and their numbers."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return np.array(Image.open(self.files[number]).convert("RGB")), number


def _written(files: tuple[str, ...]) -> Path:
    """The files as FFCV's, beside their folder."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    path = Path(files[0]).parent.with_suffix(".beton")
    kinds = {
        "image": RGBImageField(write_mode="jpg", jpeg_quality=QUALITY),
        "number": IntField(),
    }
    with redirect_stderr(io.StringIO()):  # its progress bar
        DatasetWriter(str(path), kinds, num_workers=1).from_indexed_dataset(_Pixels(files))
    return path
