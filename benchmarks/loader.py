"""A pass over a data set as a training loop has it, from files to batches, beside DataLoader and FFCV.

Everyone has a thread or a process for each core; shuffled, random resized crops, half of them mirrored,
float32; *bytes* is what our trainer asks for, which normalises on the device. FFCV reads a file of its own,
written beforehand, for which it codes every image anew, and resizes without antialiasing. *ViT-Tiny steps*
is the time in which our cheapest training step of that size takes in as many images, on all cores: the ratio
is how many times faster the loader is than what it feeds.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from imagen_fast import native
from imagen_fast.benchmarks import train
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.decode_corpus import SMALL, jpegs
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import FFCV, TORCHVISION, WEBDATASET, data_loaders, ffcv
from imagen_fast.benchmarks.peers.data_loaders import MEAN, STD, Passes, Work
from imagen_fast.benchmarks.pixel_levels import OTHER, SAME, levels_apart
from imagen_fast.data import Augmentation, Loader, RandomResizedCrop, open_source
from imagen_fast.data.decode.batch import processors

QUICK = Effort(warmup=1, least=3, most=9, seconds=5)
FULL = Effort(warmup=1, least=7, most=30, seconds=60)

SIDE = 224
# Each worker of the package webdataset needs one of its own.
SHARDS = max(8, processors())
SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
# Batches for each core, so that none waits long for the last; how many images are different, which nobody
# can tell.
BATCHES, DIFFERENT = 4, 64
CHECKED = 16
KINDS = ("folder", "tar")

Build = Callable[[Work], Passes]


def contests(quick: bool) -> Iterator[Contest]:
    for kind in KINDS:
        absent = [TORCHVISION.absence(), WEBDATASET.absence() if kind == "tar" else FFCV.absence()]
        batch = 16 if quick else 64
        case = f"loader {kind} {SMALL[0]}x{SMALL[1]} B{batch} crop {SIDE} fp32"
        yield Contest(
            case,
            "pass",
            partial(_contenders, case, kind, batch, quick),
            QUICK if quick else FULL,
            tuple(absence for absence in absent if absence is not None),
        )


def _contenders(case: str, kind: str, batch: int, quick: bool) -> Iterator[Contender]:
    cores = processors()
    count = BATCHES * batch * cores
    facts = {"images": count, "image": f"{SMALL[0]}x{SMALL[1]}", "batch": batch, "workers": cores}
    in_bytes = f"{OURS}, bytes"
    loaders: dict[str, Build] = {
        OURS: partial(ours, kind),
        in_bytes: partial(ours, kind, dtype=torch.uint8),
    }
    if TORCHVISION.absence() is None:
        if kind == "folder":
            loaders["DataLoader, Pillow, torchvision v1"] = data_loaders.pillow
            loaders["DataLoader, torchvision.io, v2"] = data_loaders.torchvision_v2
        elif WEBDATASET.absence() is None:
            loaders["DataLoader, webdataset, torchvision v1"] = data_loaders.webdataset
    if kind == "folder" and FFCV.absence() is None:
        loaders["FFCV"] = ffcv.loader
    for name, build in loaders.items():
        own = facts | (ffcv.FACTS if name == FFCV.name else {})
        bytes_ = partial(_bytes, count, 1 if name == in_bytes else 4)
        yield Contender(case, name, partial(_prepare, build, count, batch, cores), own, later_facts=bytes_)
    if kind == "folder":
        step = train.cheapest_step("tiny", quick)
        steps = count // step.facts["images"]
        least = {name: steps * step.facts[name] for name in ("bytes", "operations", "exponentials")}
        yield replace(
            step,
            case=case,
            implementation=f"{OURS}, ViT-Tiny steps, bf16",
            prepare=partial(_steps, step, count, cores),
            facts=step.facts | least | {"images": count, "step": step.case},
            build=None,
        )


def _bytes(count: int, itemsize: int) -> dict[str, int]:
    """As in `decode.py`."""
    data = jpegs(min(count, DIFFERENT), SMALL)
    files = sum(len(data[number % len(data)]) for number in range(count))
    return {"bytes": files + 3 * SIDE * SIDE * count * itemsize}


def ours(kind: str, work: Work, dtype: torch.dtype = torch.float32) -> Passes:
    source = open_source(list(work.shards) if kind == "tar" else Path(work.files[0]).parent)
    loader = Loader(
        source,
        work.batch,
        work.side,
        Augmentation(RandomResizedCrop(work.scale, work.ratio), flip=work.flip > 0),
        shuffle=work.shuffle,
        dtype=dtype,
        threads=work.workers,
    )
    return lambda: ((batch.images, batch.indices) for batch in loader)


def _prepare(build: Build, count: int, batch: int, workers: int) -> tuple[Call, Verdict]:
    native.keep_freed_memory()  # as our training loop does; for everyone
    batches = build(work(count, batch, workers))

    def run() -> int:
        return sum(len(images) for images, _ in batches())

    return run, verdict(build, OTHER if build is ffcv.loader else SAME)


def _steps(step: Contender, images: int, threads: int) -> tuple[Call, Verdict]:
    torch.set_num_threads(threads)
    call, found = step.prepare()

    def run() -> None:
        torch.set_num_threads(threads)
        for _ in range(images // step.facts["images"]):
            call()
        torch.set_num_threads(1)  # everyone else has a thread for each core already

    return run, found


def work(count: int, batch: int, workers: int) -> Work:
    files, shards = corpus(count)
    return Work(files, shards, SIDE, batch, workers, SCALE, RATIO, flip=0.5, shuffle=True)


@cache
def _folder() -> TemporaryDirectory[str]:
    """Gone when the process ends."""
    return TemporaryDirectory(prefix="imagen-fast-")


@cache
def corpus(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`count` JPEGs as files in a folder, and the same in shards with their numbers as labels; the paths."""
    data = jpegs(min(count, DIFFERENT), SMALL)
    folder = Path(_folder().name) / str(count)
    (folder / "files").mkdir(parents=True)
    files, shards = [], []
    for number in range(count):
        file = folder / "files" / f"{number:06}.jpg"
        file.write_bytes(data[number % len(data)])
        files.append(str(file))
    for number, part in enumerate(np.array_split(np.arange(count), SHARDS)):
        shards.append(str(folder / f"{number:03}.tar"))
        with tarfile.open(shards[-1], "w") as archive:
            for n in part.tolist():
                for name, content in ((f"{n:06}.jpg", data[n % len(data)]), (f"{n:06}.cls", b"%d" % n)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return tuple(files), tuple(shards)


def verdict(build: Build, bound: dict[str, float] = SAME) -> Verdict:
    """Each image once, and of views that leave nothing to chance, the whole ones, Pillow's pixels."""
    width, height = SMALL
    certain = replace(
        work(CHECKED, CHECKED // 4, 2),
        scale=(1.0, 1.0),
        ratio=(width / height, width / height),
        flip=0.0,
        shuffle=False,
    )
    batches = list(build(certain)())
    numbers = torch.cat([numbers for _, numbers in batches])
    once = {"seen": sorted(numbers.tolist()), "correct": list(range(CHECKED))}
    if once["seen"] != once["correct"]:
        return Verdict(False, {"each image once": once})
    pixels = torch.cat([images for images, _ in batches])
    if pixels.dtype == torch.uint8:
        pixels = (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return levels_apart(pixels[numbers.argsort()], _truth(), bound)


@cache
def _truth() -> torch.Tensor:
    """Pillow alone."""
    images = [
        Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for data in jpegs(CHECKED, SMALL)
    ]
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy((pixels / 255 - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2).float()
