"""Training steps of others' models under `accelerate`, beside the same models as they are.

Ours is another library's model that `imagen_fast.accelerate` was called on: with its own weights, loss and
optimizer, in its users' loop. What was swapped, what was left, and why is in the evidence of each result, as
the process that was timed says it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import torch

from imagen_fast.benchmarks import causal_training, classification, pixel_model, train, training, work
from imagen_fast.benchmarks import mae as masked
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import SAME, Errors, Verdict, errors, within
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import TIMM, TRANSFORMERS, Absence, Peer, compiler_absence
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.benchmarks.training import COMPILED, Mode
from imagen_fast.integrations.accelerate import Acceleration, accelerate
from imagen_fast.kernels.cost import Work
from imagen_fast.models import DecoderConfig, vit_config

# The first steps find no memory in their process: they are the warm-up.
QUICK = Effort(warmup=1, least=1, most=9, seconds=4)
FULL = Effort(warmup=2, least=5, most=15, seconds=20)

# Imported where it is built, and only where timm is installed.
TIMM_VIT = "imagen_fast.benchmarks.peers.timm_vit"

# A model that was given back is theirs to the last bit; a GPU's sums have no fixed order.
GIVEN_BACK = {"cpu": Errors(loss=0.0, gradient=0.0), "cuda": SAME}

BATCHES = {
    "cpu": {"vitmae small": 16, "vitmae base": 8, "vit small": 8, "imagegpt": 2},
    "cuda": {"vitmae small": 256, "vitmae base": 128, "vit small": 256, "imagegpt": 64},
}
# Large enough to keep two cores busy.
QUICK_BATCHES = {"vitmae small": 2, "vit small": 2, "imagegpt": 1}


@dataclass(frozen=True)
class Case:
    """A model of somebody's and what it is trained on.

    Args:
        name: of the model, with its batch.
        original: makes it without building the model.
        module: that builds the model; slow to import.
        compiled: in bf16 both are compiled too.
    """

    name: str
    peer: Peer
    original: Callable[[], training.Theirs]
    module: str
    device: torch.device
    compiled: bool = True


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    on_cpu = device.type == "cpu"
    batches = QUICK_BATCHES if quick and on_cpu else BATCHES[device.type]
    for case in _cases(batches, device):
        for dtype in (torch.bfloat16,) if quick else (torch.bfloat16, torch.float32):
            yield contest(case, dtype, quick)


def _cases(batches: dict[str, int], device: torch.device) -> Iterator[Case]:
    for model, batch in batches.items():
        kind, _, size = model.partition(" ")
        if kind == "vitmae":
            # On a CPU the compiler would take longer over Base than all its steps do.
            compiled = size != "base" or device.type != "cpu"
            yield vitmae(model, masked.Workload(vit_config(size), batch, device, batch), compiled=compiled)
        elif kind == "vit":
            yield vit(model, classification.Workload(vit_config(size), batch, device))
        else:
            yield imagegpt(pixel_model.Workload(causal_training.MODEL, batch, device))


def vitmae(
    model: str, workload: masked.Workload, decoder: DecoderConfig = train.FULL_DECODER, compiled: bool = True
) -> Case:
    original = partial(train.Vitmae, workload, decoder)
    module = train.MODULES[TRANSFORMERS]
    return Case(f"{model} B{workload.batch}", TRANSFORMERS, original, module, workload.device, compiled)


def vit(model: str, workload: classification.Workload) -> Case:
    name = f"{model} B{workload.batch}"
    return Case(name, TIMM, partial(_TimmViT, workload), TIMM_VIT, workload.device)


def imagegpt(workload: pixel_model.Workload) -> Case:
    name = f"imagegpt {workload.config.embed_dim}x{workload.config.depth} B{workload.batch}"
    return Case(name, TRANSFORMERS, partial(_ImageGPT, workload), causal_training.IMAGEGPT, workload.device)


def contest(case: Case, dtype: torch.dtype, quick: bool) -> Contest:
    """Of one precision, so that no ratio is one of types."""
    device = case.device.type
    absent = [case.peer.absence()]
    if compiles := case.compiled and dtype == torch.bfloat16:
        absent.append(compiler_absence(COMPILED, device, quick))
    missing = tuple(absence for absence in absent if absence is not None)
    return Contest(
        f"{case.name} {Mode(dtype).precision}",
        "step",
        partial(_contenders, case, dtype, compiles, missing, quick),
        QUICK if quick else FULL,
        missing,
        # `accelerate` lets a process keep what memory it frees. On a GPU the weights lie outside the heap.
        apart=device == "cpu",
        preload=(__name__, *([] if case.peer.absence() else [case.module])),
    )


def _contenders(
    case: Case, dtype: torch.dtype, compiles: bool, absent: tuple[Absence, ...], quick: bool
) -> Iterator[Contender]:
    missing = {absence.peer for absence in absent}
    if case.peer.name in missing:  # there is nothing to accelerate
        return
    original = case.original()
    ours = _Accelerated(original, case.device)
    compiles = compiles and COMPILED not in missing
    modes = [Mode(dtype), Mode(dtype, compiled=True)] if compiles else [Mode(dtype)]
    for mode in modes:
        yield ours.contender(f"{case.name} {mode.name} step", dtype, mode.compiled)
    step = f"{case.name} {Mode(dtype).name} step"
    # How much of a gain is that of the memory, which a process can keep without us.
    if not quick and case.device.type == "cpu" and dtype == torch.bfloat16:
        modes.append(Mode(dtype, keeps_memory=True))
    for mode in modes:
        name = case.peer.name + mode.name.removeprefix(mode.precision)
        yield replace(original.contender(step, mode), implementation=name)


class _TimmViT(training.Theirs):
    def __init__(self, workload: classification.Workload) -> None:
        super().__init__(TIMM.name, workload.batch)
        self.workload = workload

    @property
    def facts(self) -> dict[str, Any]:
        return self.workload.facts()

    @property
    def work(self) -> Work:
        return self.workload.work()

    @cached_property
    def model(self) -> Any:
        from imagen_fast.benchmarks.peers import timm_vit

        return timm_vit.random_model(self.workload.encoder, self.workload.classes)

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        from imagen_fast.benchmarks.peers import timm_vit

        return timm_vit.training_step(model, self.workload.data, dtype, compiled)


class _ImageGPT(causal_training.ImageGPT):
    """With its own loss, which is one of the things that are swapped."""

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        from imagen_fast.benchmarks.peers import imagegpt

        return imagegpt.own_training_step(model, self.workload.data, dtype, compiled)


@dataclass(frozen=True)
class _AcceleratedStep(TrainingStep):
    made: Acceleration = field(kw_only=True)

    def told(self) -> dict[str, Any]:
        return {"accelerate": str(self.made).splitlines()}


class _Accelerated(training.Ours):
    """Held against the original."""

    def __init__(self, original: training.Theirs, device: torch.device) -> None:
        super().__init__(original, device)
        self.original = original

    @property
    def facts(self) -> dict[str, Any]:
        return self.original.facts

    @property
    def work(self) -> Work:
        return self.original.work

    def step(self, dtype: torch.dtype, compiled: bool = False, trial: bool = True) -> _AcceleratedStep:
        model = copy.deepcopy(self.original.model).to(self.device)
        made = accelerate(model, trial=trial)
        step = self.original.train(model, dtype, compiled)
        return _AcceleratedStep(**vars(step), made=made)

    @cached_property
    def mathematics(self) -> Verdict:
        """In float32, with all swapped that can be, the same loss and gradients; undone, the original's."""
        step = self.step(torch.float32, trial=False)
        same = self.same(step)
        step.made.undo()
        found = errors(step.answer(self.plain.checked), self.plain.exact)
        return same & within(found, GIVEN_BACK[self.device.type], "fp32 after undo beside plain fp32")

    def contender(self, case: str, dtype: torch.dtype, compiled: bool = False) -> Contender:
        mode = Mode(dtype, compiled, keeps_memory=self.device.type == "cpu")
        build = partial(self.step, dtype, compiled)

        def prepare() -> tuple[Call, Verdict]:
            step = build()
            return step, self.mathematics & (self.near(step) if dtype == torch.bfloat16 else self.same(step))

        facts = self.facts | mode.facts | work.stated(self.work, mode.precision)
        return Contender(case, OURS, prepare, facts, build, told=_told)


def _told(call: Call) -> dict[str, Any]:
    return cast(_AcceleratedStep, call).told()
