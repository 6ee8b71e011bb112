"""How others feed a training loop with files: PyTorch's DataLoader, a process for each core.

Each yields batches of normalised float32 pixels [B, 3, H, W], and the numbers of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imagen_fast.data.sources import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Work:
    """A pass over JPEGs, in files and in shards, whose labels are their numbers, and the views of them.

    Args:
        scale, ratio: of random resized crops, which become squares of `side` pixels.
        flip: the probability of a mirrored one.
        workers: threads or processes.
    """

    files: tuple[str, ...]
    shards: tuple[str, ...]
    side: int
    batch: int
    workers: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    shuffle: bool


# Called for each pass: batches of pixels, and of the images' numbers.
Passes = Callable[[], Iterable[tuple[Tensor, Tensor]]]


class _Files(Dataset):
    def __init__(self, files: tuple[str, ...], read: Callable[[str], Any], transform: Callable) -> None:
        self.files, self.read, self.transform = files, read, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(self.read(self.files[number])), number


def pillow(work: Work) -> Passes:
    """Pillow and torchvision's first transforms, as ImageFolder's users have them."""
    return _over_files(work, _by_pillow, _v1(work))


def torchvision_v2(work: Work) -> Passes:
    """torchvision's own decoder, and its transforms of uint8 tensors."""
    from torchvision.transforms import InterpolationMode, v2

    steps = [
        v2.RandomResizedCrop(work.side, work.scale, work.ratio, InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(work.flip),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(MEAN), list(STD), inplace=True),
    ]
    return _over_files(work, _by_torchvision, v2.Compose(steps))


def webdataset(work: Work) -> Passes:
    """The package webdataset: shards streamed, Pillow, and torchvision's first transforms."""
    import webdataset as wds

    dataset = wds.WebDataset(list(work.shards), shardshuffle=len(work.shards) if work.shuffle else False)
    if work.shuffle:
        dataset = dataset.shuffle(1000)
    dataset = dataset.decode("pilrgb").to_tuple("jpg", "cls").map_tuple(_v1(work))
    loader = DataLoader(dataset, work.batch, num_workers=work.workers, persistent_workers=True)
    return lambda: loader


def _over_files(work: Work, read: Callable[[str], Any], transform: Callable) -> Passes:
    loader = DataLoader(
        _Files(work.files, read, transform),
        work.batch,
        work.shuffle,
        num_workers=work.workers,
        persistent_workers=True,
    )
    return lambda: loader


def _v1(work: Work) -> Callable[[Image.Image], Tensor]:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(
                work.side, work.scale, work.ratio, transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(work.flip),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD, inplace=True),
        ]
    )


def _by_pillow(file: str) -> Image.Image:
    return Image.open(file).convert("RGB")


def _by_torchvision(file: str) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(file), mode=ImageReadMode.RGB)
