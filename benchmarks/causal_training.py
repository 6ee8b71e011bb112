"""Training steps of pixel transformers beside transformers' ImageGPT: forward, backward, AdamW.

Ours has the very weights of theirs, and the same loss and gradients; see `imagen_fast.models.imagegpt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import torch

from imagen_fast.benchmarks import pixel_model, training
from imagen_fast.benchmarks.contender import Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import TRANSFORMERS, Absence, compiler_absence
from imagen_fast.benchmarks.pixel_model import Workload, imagegpt_config
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.benchmarks.training import COMPILED, Mode
from imagen_fast.kernels.cost import Work
from imagen_fast.models.imagegpt import load_imagegpt

# The first steps find no memory in their process: they are the warm-up.
QUICK = Effort(warmup=1, least=1, most=5, seconds=8)
FULL = Effort(warmup=2, least=5, most=30, seconds=60)

# Imported where it is built, and only where transformers is installed.
IMAGEGPT = "imagen_fast.benchmarks.peers.imagegpt"

MODEL = imagegpt_config(width=256, depth=8, heads=8)
BATCHES = {"cpu": 4, "cuda": 64}


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    # One image of 1024 pixels keeps two cores busy, and tells a wrong gradient as well as four.
    batch = 1 if quick and device.type == "cpu" else BATCHES[device.type]
    yield contest(f"imagegpt {MODEL.embed_dim}x{MODEL.depth} B{batch}", Workload(MODEL, batch, device), quick)


def contest(name: str, workload: Workload, quick: bool) -> Contest:
    absent = [TRANSFORMERS.absence(), compiler_absence(COMPILED, workload.device.type, quick)]
    missing = tuple(absence for absence in absent if absence is not None)
    return Contest(
        name,
        "step",
        partial(_contenders, name, workload, quick, missing),
        QUICK if quick else FULL,
        missing,
        # On a GPU the weights lie outside the heap, and every process would bring a context of its own.
        apart=workload.device.type == "cpu",
        preload=(__name__, *([] if TRANSFORMERS.absence() else [IMAGEGPT])),
    )


def _contenders(
    name: str, workload: Workload, quick: bool, absent: tuple[Absence, ...]
) -> Iterator[Contender]:
    missing = {absence.peer for absence in absent}
    on_cuda = workload.device.type == "cuda"
    compiles = COMPILED not in missing
    theirs = None if TRANSFORMERS.name in missing else ImageGPT(workload)
    ours = _Ours(workload, theirs)
    yield ours.contender(f"{name} bf16 step", torch.bfloat16)
    if not quick:
        yield ours.contender(f"{name} fp32 step", torch.float32)
    if compiles:
        yield ours.contender(f"{name} bf16 compiled step", torch.bfloat16, compiled=True)
    if theirs is None:
        return
    modes = [Mode(torch.bfloat16)]
    if compiles:
        modes.append(Mode(torch.bfloat16, compiled=True))
    if not quick:
        modes.append(Mode(torch.float32))
        if not on_cuda:  # there the heap holds no weights
            modes.append(Mode(torch.bfloat16, keeps_memory=True))
    for mode in modes:
        yield theirs.contender(f"{name} {mode.precision} step", mode)


class ImageGPT(training.Theirs):
    """transformers' model: what ours must equal, and a peer."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(TRANSFORMERS.name, workload.batch)
        self.workload = workload

    @property
    def facts(self) -> dict[str, Any]:
        return self.workload.facts()

    @property
    def work(self) -> Work:
        return self.workload.work()

    @cached_property
    def model(self) -> Any:
        from imagen_fast.benchmarks.peers import imagegpt

        return imagegpt.random_model(self.workload.config)

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        from imagen_fast.benchmarks.peers import imagegpt

        return imagegpt.training_step(model, self.workload.data, dtype, compiled)


class _Reference(training.Plain):
    """Our own model on the reference back-end: plain PyTorch, with autocast where it is in bf16."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.batch)
        self.workload = workload

    def step(self, dtype: torch.dtype) -> TrainingStep:
        model = pixel_model.random_model(self.workload.config)
        autocast = None if dtype == torch.float32 else dtype
        return pixel_model.training_step(
            self.workload, model, torch.float32, backend="reference", autocast=autocast
        )


class _Ours(training.Ours):
    """Held against ImageGPT where that is installed."""

    def __init__(self, workload: Workload, theirs: ImageGPT | None) -> None:
        super().__init__(theirs or _Reference(workload), workload.device)
        self.workload, self.theirs = workload, theirs

    @property
    def facts(self) -> dict[str, Any]:
        return self.workload.facts()

    @property
    def work(self) -> Work:
        return self.workload.work()

    def step(self, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        if self.theirs is None:
            model = pixel_model.random_model(self.workload.config)
        else:
            model = load_imagegpt(self.theirs.model)
        return pixel_model.training_step(self.workload, model, dtype, compiled)
