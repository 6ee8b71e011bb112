"""Attention among pixels in generation order, beside PyTorch's attention with the same mask.

Contexts are a raster, a quadrant and the quadrant's part of a window. SDPA takes the mask as a boolean
matrix, and a raster as `is_causal` too; FlexAttention skips blocks that the mask leaves empty; kernels for
packed rows know rasters; NATTEN, causal along both axes, knows quadrants and windows. A quadrant stands
beside our own full attention too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from imagen_fast import native, ops
from imagen_fast.benchmarks import cuda_graph, resident
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD, Attention
from imagen_fast.benchmarks.attention_case import Case as DenseCase
from imagen_fast.benchmarks.causal_attention_case import Case
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import (
    NATTEN,
    Absence,
    Peer,
    compiler_absence,
    flex_attention,
    memory_absence,
    natten,
    packed,
    sdpa,
    try_out,
)
from imagen_fast.ops import CausalContext, Neighbourhood, Quadrant, Raster

QUICK = Effort(warmup=1, least=3, most=9, seconds=1)
FULL = Effort(warmup=2, least=9, most=60, seconds=6)

CONTEXTS: tuple[CausalContext, ...] = (Raster(), Quadrant(), Neighbourhood(3))
WIDTH = 64

# (side, images, heads); the first is the chief one.
SIZES = {
    "cpu": ((32, 4, 8), (16, 16, 8), (64, 1, 2)),
    "cuda": ((32, 256, 12), (64, 16, 12)),
}


class Rival(NamedTuple):
    """A peer in one of its modes.

    Args:
        build: from a case to its attention.
        trial: as `build`, but tried on one image beforehand to hear whether the peer refuses the case.
        quick: takes part in a quick run, which compiles nothing on a CPU.
        score_bytes: how many bytes it holds at once for each score, where that may be more than a GPU has.
    """

    name: str
    build: Callable[[Case], Attention]
    trial: Callable[[Case], Attention] | None = None
    peer: Peer | None = None
    quick: bool = False
    score_bytes: int = 0

    def absence(self, case: Case) -> Absence | None:
        """Whether it refuses the case is heard when it is prepared."""
        device = case.device.type
        if self.peer is not None and (absence := self.peer.absence(device)) is not None:
            return absence
        scores = case.images * case.heads * case.mask.numel()
        if absence := memory_absence(self.name, case.name, self.score_bytes * scores, device):
            return absence
        return compiler_absence(self.name, device, self.quick) if "compiled" in self.name else None


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    for case in cases(device, quick):
        for measured in (BOTH,) if quick else (BOTH, FORWARD):
            yield contest(case, measured, tuple(rivals(case, quick)), QUICK if quick else FULL)


def contest(case: Case, measured: str, wanted: tuple[Rival, ...], effort: Effort) -> Contest:
    absent = {r: absence for r in wanted if (absence := r.absence(case)) is not None}
    present = [rival for rival in wanted if rival not in absent]
    return Contest(
        f"{case.name} {measured}",
        measured,
        partial(_contenders, case, measured, present),
        effort,
        tuple(absent.values()),
        cold=True,
    )


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    types = ("bf16",) if quick or device.type == "cuda" else ("bf16", "fp32")
    sizes = SIZES[device.type][: 1 if quick else None]
    for (side, images, heads), context, type_ in product(sizes, CONTEXTS, types):
        yield Case(context, (side, side), images, heads, WIDTH, type_, device)


def rivals(case: Case, quick: bool) -> Iterator[Rival]:
    yield Rival("SDPA with the mask", _sdpa())
    yield Rival("SDPA math with the mask", _sdpa(SDPBackend.MATH), score_bytes=sdpa.MATH_BYTES)
    yield Rival("SDPA with the mask compiled", _sdpa(compiled=True), quick=quick)
    for peer, backend in sdpa.FORCED.items():
        yield Rival(peer.name, _sdpa(backend), _sdpa(backend), peer)
    if isinstance(case.context, Raster):
        yield Rival("SDPA causal", lambda _: sdpa.attention(None, causal=True))
        for peer, make in packed.KERNELS.items():
            yield Rival(peer.name, _packed(make), _packed(make), peer)
    # On the CPU there is none of its kernels to compile for a backward, which the trial finds out.
    trial = _flex(compiled=False) if case.device.type == "cpu" else None
    yield Rival("FlexAttention compiled", _flex(compiled=True), trial, quick=quick)
    if not isinstance(case.context, Raster):
        yield Rival(NATTEN.name, _natten, _natten, NATTEN)


def _sdpa(backend: SDPBackend | None = None, compiled: bool = False) -> Callable[[Case], Attention]:
    return lambda case: sdpa.attention(case.mask, backend, compiled)


def _packed(make: Callable[..., Attention]) -> Callable[[Case], Attention]:
    """Images one after another: a raster is what these kernels call causal."""

    def build(case: Case) -> Attention:
        lengths = torch.full((case.images,), case.grid[0] * case.grid[1])
        attend = make(lengths, lengths, case.device, causal=True)

        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attend(*(x.flatten(0, 1) for x in (q, k, v))).unflatten(0, q.shape[:2])

        return call

    return build


def _flex(compiled: bool) -> Callable[[Case], Attention]:
    return lambda case: flex_attention.causal(case.window, case.device, compiled)


def _natten(case: Case) -> Attention:
    return natten.attention(case.window)


def _contenders(case: Case, measured: str, present: list[Rival]) -> Iterator[Contender]:
    # What earlier contests compiled counts against the limit of one function's versions.
    torch.compiler.reset()
    name, facts = f"{case.name} {measured}", case.facts(measured)
    own = Rival(OURS, lambda case: case.ours)
    for rival in (own, *present):
        verdict = case.bound if rival is own else case.plausible
        yield Contender(name, rival.name, partial(_prepare, case, measured, rival, verdict), facts)
    if isinstance(case.context, Quadrant):
        dense = _full(case)
        yield Contender(
            name, f"{OURS} full attention", partial(_prepare_full, dense, measured), dense.facts(measured)
        )


def _prepare(
    case: Case, measured: str, rival: Rival, verdict_on: Callable[..., Verdict]
) -> tuple[Call, Verdict]:
    if (trial := rival.trial) is not None:
        one = replace(case, images=1)
        try_out(
            f"{rival.name} ({type(case.context).__name__}, {measured})",
            lambda: one.layout.call(trial(one), measured)(),
        )
    return _checked(case.layout.call(rival.build(case), measured), verdict_on, case.device)


def _full(case: Case) -> DenseCase:
    """All pixels see each other, of the same sizes: what our own kernel for that takes."""
    pixels = case.grid[0] * case.grid[1]
    return DenseCase("dense", case.images, pixels, pixels, case.heads, case.width, case.type, case.device)


def _prepare_full(dense: DenseCase, measured: str) -> tuple[Call, Verdict]:
    call = dense.grid.call(lambda q, k, v: ops.masked_patch_attention(q, k, v), measured)
    return _checked(call, dense.verdict, dense.device)


def _checked(
    call: Callable[[], tuple[Tensor, ...]], verdict_on: Callable[..., Verdict], device: torch.device
) -> tuple[Call, Verdict]:
    if device.type == "cpu":
        # For everyone here: else whoever allocates waits for page faults, as many as it happens to meet.
        native.keep_freed_memory()
    verdict = verdict_on(call())
    if not verdict.correct:
        return call, verdict
    if device.type == "cpu":
        return call, verdict & resident.evidence(call)
    graph, evidence = cuda_graph.capture(call)
    return graph, verdict & Verdict(True, evidence)
