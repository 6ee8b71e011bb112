"""Encoded photographs to training-ready tensors, beside other pipelines.

The views are the same for all: random resized crops, half of them mirrored. Everyone normalises to float32.

On a CPU everyone has one thread and keeps the memory of its batch; *new memory* is ours with a new tensor for
each batch. At a smaller scale (`dct scaling`) and without antialiasing (OpenCV) pixels differ: by how much is
in the record. The suite's other contests there, whole loaders on all cores, are in `loader.py`.

On a GPU everyone has as many threads as there are processors; *two decoders* is ours with half a batch in
each of two threads. A call is over when its pixels are there: nobody works ahead.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagen_fast.benchmarks import loader, resident
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.decode_corpus import LARGE, SMALL, jpegs
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import (
    DALI,
    OPENCV,
    SIMPLEJPEG,
    TORCHCODEC,
    TORCHVISION,
    gpu_image_pipelines,
    image_pipelines,
)
from imagen_fast.benchmarks.peers.image_pipelines import MEAN, STD, Pipeline, Work
from imagen_fast.benchmarks.pixel_levels import OTHER, SAME, levels_apart
from imagen_fast.data import decode_batch
from imagen_fast.data.decode.batch import processors
from imagen_fast.data.views import Views, random_boxes

QUICK = Effort(warmup=1, least=3, most=9, seconds=3)
FULL = Effort(warmup=1, least=7, most=60, seconds=40)

SIDE = 224
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
# nvJPEG's pixels are its own; DALI's tests let its two decoders differ by so much, in levels of 255.
NVJPEG = {"mean": 1.0, "maximum": 255.0}

Build = Callable[[Work], Pipeline]


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    effort = QUICK if quick else FULL
    if device.type == "cuda":
        yield gpu_contest("500x375", SMALL, 64 if quick else 256, effort)
        if not quick:
            yield gpu_contest("2048x1536", LARGE, 64, effort)
        return
    yield contest("500x375", SMALL, 16 if quick else 64, effort)
    if not quick:
        yield contest("2048x1536", LARGE, 16, effort)
    yield from loader.contests(quick)


def contest(name: str, size: tuple[int, int], count: int, effort: Effort, threads: int = 1) -> Contest:
    """With more than one thread, those of peers that have none of their own take a part of the batch each."""
    peers = TORCHVISION, TORCHCODEC, SIMPLEJPEG, OPENCV, DALI
    absent = [absence for peer in peers if (absence := peer.absence())]
    case = f"decode {name} B{count} crop {SIDE} fp32" + (f", {threads} threads" if threads > 1 else "")
    return Contest(case, "decode", partial(_contenders, case, size, count, threads), effort, tuple(absent))


def gpu_contest(name: str, size: tuple[int, int], count: int, effort: Effort) -> Contest:
    absent = [absence for peer in (TORCHVISION, TORCHCODEC, DALI) if (absence := peer.absence())]
    case = f"decode {name} B{count} crop {SIDE} fp32, GPU"
    return Contest(case, "decode", partial(_gpu_contenders, case, size, count), effort, tuple(absent))


def _contenders(case: str, size: tuple[int, int], count: int, threads: int) -> Iterator[Contender]:
    own = partial(_ours, threads=threads)
    ours: dict[str, tuple[Build, dict[str, float]]] = {OURS: (own, SAME)}
    if size == LARGE:
        ours[f"{OURS}, dct scaling"] = (partial(own, dct_scaling=1.0), OTHER)
    else:
        ours[f"{OURS}, new memory"] = (partial(own, keep=False), SAME)
    theirs: dict[str, tuple[Build, dict[str, float]]] = {}
    if TORCHVISION.absence() is None:
        theirs["Pillow, torchvision v1"] = (image_pipelines.pillow, SAME)
        theirs["torchvision.io, v2"] = (image_pipelines.torchvision_v2, SAME)
        if TORCHCODEC.absence() is None:
            theirs["TorchCodec, v2"] = (image_pipelines.torchcodec_v2, SAME)
    if OPENCV.absence() is None:
        theirs["OpenCV"] = (image_pipelines.opencv, OTHER)
        if SIMPLEJPEG.absence() is None:
            theirs["simplejpeg, OpenCV"] = (image_pipelines.simplejpeg_opencv, OTHER)
    if threads > 1:
        theirs = {name: (partial(_shared, build, threads), bound) for name, (build, bound) in theirs.items()}
    if DALI.absence() is None:
        # It has threads of its own.
        theirs["DALI"] = (partial(image_pipelines.dali, threads=threads), OTHER)
    for name, (build, bound) in (ours | theirs).items():
        facts, bytes_ = _facts(size, count, threads), partial(_bytes, size, count)
        prepare = partial(_prepare, build, bound, size, count)
        yield Contender(case, name, prepare, facts, later_facts=bytes_)


def _gpu_contenders(case: str, size: tuple[int, int], count: int) -> Iterator[Contender]:
    threads = processors()
    builds: dict[str, tuple[Build, dict[str, float]]] = {
        OURS: (partial(_ours_on_gpu, threads=threads), NVJPEG),
        f"{OURS}, two decoders": (partial(_ours_on_gpu, threads=max(1, threads // 2), decoders=2), NVJPEG),
    }
    if TORCHVISION.absence() is None:
        builds["torchvision.io on CUDA, v2"] = (gpu_image_pipelines.torchvision_cuda, OTHER)
        if TORCHCODEC.absence() is None:
            builds["TorchCodec on CUDA, v2"] = (gpu_image_pipelines.torchcodec_cuda, OTHER)
    if DALI.absence() is None:
        builds["DALI, mixed"] = (partial(image_pipelines.dali, threads=threads, gpu=True), OTHER)
    for name, (build, bound) in builds.items():
        facts, bytes_ = _facts(size, count, threads), partial(_bytes, size, count)
        prepare = partial(_prepare_on_gpu, build, bound, size, count)
        yield Contender(case, name, prepare, facts, later_facts=bytes_)


def _facts(size: tuple[int, int], count: int, threads: int) -> dict[str, Any]:
    return {"images": count, "image": f"{size[0]}x{size[1]}", "threads": threads}


def _bytes(size: tuple[int, int], count: int) -> dict[str, Any]:
    """The files once and the pixels that come out; nobody knows the least operations of a decoder."""
    given = work(size, count)
    return {"bytes": sum(map(len, given.images)) + given.out().nbytes}


def work(size: tuple[int, int], count: int) -> Work:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, np.tile(size, (count, 1)), SCALE, RATIO)
    return Work(jpegs(count, size), boxes, rng.random(count) < 0.5, SIDE)


def _ours(given: Work, keep: bool = True, dct_scaling: float | None = None, threads: int = 1) -> Pipeline:
    views = Views.of_boxes(given.boxes, (given.side, given.side), given.mirrored)
    out = given.out() if keep else None

    def run() -> Tensor:
        made = decode_batch(
            given.images,
            views,
            given.side,
            mean=MEAN,
            std=STD,
            threads=threads,
            dct_scaling=dct_scaling,
            out=out,
        )
        assert not made.failed
        return made.pixels

    return run


def _shared(build: Build, threads: int, given: Work) -> Pipeline:
    """As many parts as threads, each with a pipeline of its own."""
    out = given.out()
    parts = [slice(p[0], p[-1] + 1) for p in np.array_split(np.arange(len(out)), threads) if len(p)]
    pipelines = [build(given.part(part, out[part])) for part in parts]
    pool = ThreadPoolExecutor(threads)

    def run() -> Tensor:
        list(pool.map(lambda pipeline: pipeline(), pipelines))
        return out

    return run


def _ours_on_gpu(given: Work, threads: int, decoders: int = 1) -> Pipeline:
    views = Views.of_boxes(given.boxes, (given.side, given.side), given.mirrored)
    out = given.out().cuda()
    each = -(-len(given.images) // decoders)
    parts = [slice(start, start + each) for start in range(0, len(given.images), each)]
    pool = ThreadPoolExecutor(decoders)

    def decode(part: slice) -> None:
        made = decode_batch(
            given.images[part], views[part], given.side, mean=MEAN, std=STD, threads=threads, out=out[part]
        )
        assert not made.failed

    def run() -> Tensor:
        if decoders > 1:
            list(pool.map(decode, parts))
        else:
            decode(parts[0])
        return out

    return run


def _prepare(
    build: Build, bound: dict[str, float], size: tuple[int, int], count: int
) -> tuple[Call, Verdict]:
    # Everyone's threads: a loader's worker has one.
    torch.set_num_threads(1)
    given = work(size, count)
    run = build(given)
    return run, levels_apart(run(), truth(given), bound) & resident.evidence(run)


def _prepare_on_gpu(
    build: Build, bound: dict[str, float], size: tuple[int, int], count: int
) -> tuple[Call, Verdict]:
    given = work(size, count)
    run = build(given)
    return run, levels_apart(run().cpu(), truth(given), bound)


def truth(given: Work) -> Tensor:
    """Pillow alone."""
    out = given.out()
    for i, (data, box) in enumerate(zip(given.images, given.boxes.tolist(), strict=True)):
        image = Image.open(io.BytesIO(data)).convert("RGB").crop(box)
        image = image.resize((given.side, given.side), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)[:, ::-1] if given.mirrored[i] else np.asarray(image)
        out[i] = torch.from_numpy((pixels / 255 - np.array(MEAN)) / np.array(STD)).permute(2, 0, 1)
    return out
