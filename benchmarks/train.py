"""Training steps of masked autoencoders: forward, backward, AdamW; 75% of the patches hidden.

Two objectives of ours run beside transformers' ViTMAE and a model of timm's parts. `same-objective` computes
what both compute, from the same weights: the same loss and gradients. `cross QxL` reaches the same end by a
cheaper decoder (CrossMAE: Q hidden patches an image are predicted from the visible ones, in L layers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from imagen_fast.benchmarks import mae, training
from imagen_fast.benchmarks.contender import Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import SAME, Verdict, errors, within
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import TIMM, TRANSFORMERS, Absence, compiler_absence
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.benchmarks.training import COMPILED, Mode
from imagen_fast.kernels.cost import Work
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, vit_config
from imagen_fast.models.convert import load_vitmae

# The first steps find no memory in their process: they are the warm-up.
QUICK = Effort(warmup=1, least=1, most=9, seconds=12)
FULL = Effort(warmup=2, least=5, most=30, seconds=60)

# Imported where they are built, and only where what they need is installed.
MODULES = {
    TRANSFORMERS: "imagen_fast.benchmarks.peers.vitmae",
    TIMM: "imagen_fast.benchmarks.peers.timm_mae",
}

# ViTMAE's default at every size.
FULL_DECODER = DecoderConfig("full", embed_dim=512, depth=8, heads=16)
CROSS_QUERIES = 49
CROSS_DEPTHS = (12, 8)

BATCHES = {"cpu": {"tiny": 16, "small": 16, "base": 16}, "cuda": {"small": 256, "base": 128, "large": 64}}


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    for size, batch in BATCHES[device.type].items():
        if not quick or size == "small":
            # Two images tell a wrong gradient as well as sixteen, in an eighth of the time. A compiled step
            # is made for one shape, so a GPU's run checks the whole batch.
            checked = 2 if quick and device.type == "cpu" else batch
            workload = mae.Workload(vit_config(size), batch, device, checked)
            if quick or device.type != "cpu":
                yield contest(f"mae {size}", workload, quick)
            else:  # at Base all together would not fit into 24 GB
                yield contest(f"mae {size}", workload, quick, cross=False)
                yield contest(f"mae {size}", workload, quick, same=False)


def contest(
    name: str,
    workload: mae.Workload,
    quick: bool,
    decoder: DecoderConfig = FULL_DECODER,
    queries: int = CROSS_QUERIES,
    same: bool = True,
    cross: bool = True,
) -> Contest:
    """The contest of one size; `decoder` is ViTMAE's, the cross decoders have its width and heads.

    Args:
        same, cross: which objectives of ours take part.
    """
    absent = [TRANSFORMERS.absence(), TIMM.absence()]
    if same:
        absent.append(compiler_absence(COMPILED, workload.device.type, quick))
    missing = tuple(absence for absence in absent if absence is not None)
    return Contest(
        name if same else f"{name} cross",
        "step",
        partial(_contenders, name, workload, quick, decoder, queries, (same, cross), missing),
        QUICK if quick else FULL,
        missing,
        # On a GPU the weights lie outside the heap, and every process would bring a context of its own.
        apart=workload.device.type == "cpu",
        preload=(__name__, *(module for peer, module in MODULES.items() if not peer.absence())),
    )


def _contenders(
    name: str,
    workload: mae.Workload,
    quick: bool,
    decoder: DecoderConfig,
    queries: int,
    objectives: tuple[bool, bool],
    absent: tuple[Absence, ...],
) -> Iterator[Contender]:
    missing = {absence.peer for absence in absent}
    on_cuda = workload.device.type == "cuda"
    vitmae = None if TRANSFORMERS.name in missing else Vitmae(workload, decoder)
    ours = _Ours(workload, decoder, 1.0, vitmae)
    same, cross = objectives
    compiles = same and COMPILED not in missing
    if same:
        yield ours.contender(f"{name} same-objective bf16 step", torch.bfloat16)
        if not quick:
            yield ours.contender(f"{name} same-objective fp32 step", torch.float32)
        if on_cuda and compiles:
            yield ours.contender(f"{name} same-objective bf16 compiled step", torch.bfloat16, compiled=True)
    for depth in CROSS_DEPTHS[: (1 if quick else None) if cross else 0]:
        yield _cross_step(name, workload, decoder, queries, depth)
    half = [Mode(torch.bfloat16), *([Mode(torch.bfloat16, compiled=True)] if compiles else [])]
    more = [Mode(torch.float32)]
    if not quick and same and not on_cuda:  # there the heap holds no weights
        more.append(Mode(torch.bfloat16, keeps_memory=True))
    theirs = [(vitmae, mode) for mode in half + more] if vitmae is not None else []
    if TIMM.name not in missing:
        theirs += [(_Timm(ours), mode) for mode in half]
    for peer, mode in theirs:
        yield peer.contender(f"{name} same-objective {mode.precision} step", mode)


def _cross_step(
    name: str, workload: mae.Workload, decoder: DecoderConfig, queries: int, depth: int
) -> Contender:
    shape = DecoderConfig("cross", decoder.embed_dim, depth, decoder.heads, decoder.mlp_ratio)
    ours = _Ours(workload, shape, queries / workload.hidden, None)
    return ours.contender(f"{name} cross {queries}x{depth} bf16 step", torch.bfloat16)


def cheapest_step(size: str, quick: bool) -> Contender:
    """The step of this suite that takes in images fastest on a CPU: what a loader has to keep up with."""
    batch = BATCHES["cpu"][size]
    workload = mae.Workload(vit_config(size), batch, torch.device("cpu"), 2 if quick else batch)
    return _cross_step(f"mae {size}", workload, FULL_DECODER, CROSS_QUERIES, CROSS_DEPTHS[-1])


class Vitmae(training.Theirs):
    """transformers' model: what ours of the same objective must equal, and a peer."""

    def __init__(self, workload: mae.Workload, decoder: DecoderConfig) -> None:
        super().__init__(TRANSFORMERS.name, workload.checked)
        self.workload, self.decoder = workload, decoder

    @property
    def facts(self) -> dict[str, Any]:
        return self.workload.facts() | {"decoder": _describe(self.decoder)}

    @property
    def work(self) -> Work:
        return self.workload.work(self.decoder, self.workload.hidden)

    @cached_property
    def model(self) -> Any:
        from imagen_fast.benchmarks.peers import vitmae

        with torch.random.fork_rng():
            torch.manual_seed(mae.SEED)
            return vitmae.build(self.workload.encoder, self.decoder, self.workload.hidden_share)

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        from imagen_fast.benchmarks.peers import vitmae

        return vitmae.training_step(model, self.workload.data, dtype, compiled)


@dataclass
class _Reference(training.Plain):
    """Our own model on the reference back-end: plain PyTorch, with autocast where it is in bf16."""

    workload: mae.Workload
    decoder: DecoderConfig
    predicted: float

    def __post_init__(self) -> None:
        super().__init__(self.workload.checked)

    def step(self, dtype: torch.dtype) -> TrainingStep:
        model = mae.random_model(self.workload.encoder, self.decoder)
        autocast = None if dtype == torch.float32 else dtype
        return mae.training_step(
            self.workload, model, torch.float32, self.predicted, backend="reference", autocast=autocast
        )


class _Ours(training.Ours):
    """One objective of ours, held against ViTMAE where it computes the same and that is installed."""

    def __init__(
        self, workload: mae.Workload, decoder: DecoderConfig, predicted: float, vitmae: Vitmae | None
    ) -> None:
        super().__init__(vitmae or _Reference(workload, decoder, predicted), workload.device)
        self.workload, self.decoder, self.predicted, self.vitmae = workload, decoder, predicted, vitmae

    @property
    def facts(self) -> dict[str, Any]:
        return self.workload.facts() | {"decoder": _describe(self.decoder), "predicted": self._count}

    @property
    def work(self) -> Work:
        return self.workload.work(self.decoder, self._count)

    @property
    def _count(self) -> int:
        return round(self.predicted * self.workload.hidden)

    def model(self) -> MaskedAutoencoder:
        if self.vitmae is not None:
            return load_vitmae(self.vitmae.model)
        return mae.random_model(self.workload.encoder, self.decoder)

    def step(self, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        return mae.training_step(self.workload, self.model(), dtype, self.predicted, compiled)


class _Timm(training.Theirs):
    """timm's parts with the weights of ours, and held against what ours is."""

    def __init__(self, ours: _Ours) -> None:
        super().__init__(TIMM.name, ours.plain.checked)
        self.ours = ours

    @property
    def facts(self) -> dict[str, Any]:
        return self.ours.facts

    @property
    def work(self) -> Work:
        return self.ours.work

    @cached_property
    def mathematics(self) -> Verdict:
        return within(errors(self.exact, self.ours.plain.exact), SAME, "fp32 beside plain fp32")

    @cached_property
    def model(self) -> Any:
        from imagen_fast.benchmarks.peers import timm_mae

        return timm_mae.build(self.ours.model(), self.ours.workload.hidden_share)

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        from imagen_fast.benchmarks.peers import timm_mae

        return timm_mae.training_step(model, self.ours.workload.data, dtype, compiled)


def _describe(decoder: DecoderConfig) -> str:
    return f"{decoder.kind}, width {decoder.embed_dim}, {decoder.depth} layers, {decoder.heads} heads"
