"""Pixel cross-entropy beside full logits, PyTorch's own op for it, and other kernels.

On the CPU each lives in a process of its own, as its user runs it; a full run adds full logits that keep
freed memory as ours does, and ours without that. What a call needs of memory beyond its input is measured
with the check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from imagen_fast import native, ops
from imagen_fast.benchmarks import cuda_graph, resident
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.likelihood_case import Case
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import (
    CUT_CROSS_ENTROPY,
    LIGER,
    QUACK,
    TORCH_LINEAR_CROSS_ENTROPY,
    Absence,
    Peer,
    compiler_absence,
    memory_absence,
)
from imagen_fast.benchmarks.peers import linear_cross_entropy as peers
from imagen_fast.benchmarks.peers.linear_cross_entropy import Loss

QUICK = Effort(warmup=1, least=3, most=15, seconds=3)
FULL = Effort(warmup=2, least=9, most=60, seconds=10)

# Both chief cases: the head of a pixel transformer over a palette, and one over the intensities of a patch.
CPU_CASES = ((256, 512), (64, 256))
CPU_CASES_TOO = ((32, 256), (512, 512))
CPU_ROWS = 65536
QUICK_ROWS = 8192  # tell a wrong gradient as well as all, in an eighth of the time

# Of eager full logits: in both types, their logarithms and gradients; as measured on the CPU.
EAGER_BYTES = 18

# iGPT's head on 256 images; and every value of the hidden patches of 256 images of 224 pixels, 147 of each.
CUDA_CASES = ((262144, 512, 512), (256 * 147 * 768, 64, 256))


class Rival(NamedTuple):
    """A peer in one of its modes.

    Args:
        loss: imports what it needs when it is called, where it is built.
        keeps_memory: its process keeps what memory it frees, as ours does.
        logit_bytes: how many bytes it holds at once for each logit, where that may be more than a GPU has.
        quick: takes part in a quick run, which compiles nothing on a CPU.
    """

    name: str
    loss: Callable[[], Loss]
    peer: Peer | None = None
    compiled: bool = False
    keeps_memory: bool = False
    logit_bytes: int = 0
    quick: bool = False

    def absence(self, case: Case) -> Absence | None:
        device = case.device.type
        if self.peer is not None and (absence := self.peer.absence(device)) is not None:
            return absence
        if self.compiled and (absence := compiler_absence(self.name, device, self.quick)) is not None:
            return absence
        return memory_absence(self.name, case.name, self.logit_bytes * case.rows * case.levels, device)


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    wanted = tuple(rivals(device.type, quick))
    for case in cases(device, quick):
        for measured in (BOTH,) if quick else (BOTH, FORWARD):
            yield contest(case, measured, wanted, QUICK if quick else FULL)


def contest(case: Case, measured: str, wanted: tuple[Rival, ...], effort: Effort) -> Contest:
    absent = {rival: absence for rival in wanted if (absence := rival.absence(case)) is not None}
    present = tuple(rival for rival in wanted if rival not in absent)
    return Contest(
        f"{case.name} {measured}",
        measured,
        partial(_contenders, case, measured, present),
        effort,
        tuple(absent.values()),
        cold=True,
        apart=case.device.type == "cpu",
        preload=(__name__,),
    )


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    if device.type == "cpu":
        for width, levels in CPU_CASES if quick else CPU_CASES + CPU_CASES_TOO:
            for type_ in ("bf16",) if quick else ("bf16", "fp32"):
                checked = QUICK_ROWS if quick else CPU_ROWS
                yield Case(CPU_ROWS, width, levels, type_, device, checked)
        return
    for rows, width, levels in CUDA_CASES[: 1 if quick else None]:
        yield Case(rows, width, levels, "bf16", device, rows)


def rivals(device: str, quick: bool) -> Iterator[Rival]:
    yield Rival("full logits", peers.plain, logit_bytes=EAGER_BYTES)
    yield Rival("full logits compiled", peers.compiled, compiled=True, quick=quick)
    for name, loss in {
        "linear_cross_entropy": peers.torch_default,
        "linear_cross_entropy chunked": partial(peers.torch_chunked, "accurate"),
        "linear_cross_entropy chunked, compact": partial(peers.torch_chunked, "compact"),
    }.items():
        yield Rival(name, loss, TORCH_LINEAR_CROSS_ENTROPY)
    yield Rival(LIGER.name, peers.liger, LIGER)
    yield Rival(CUT_CROSS_ENTROPY.name, peers.cut_cross_entropy, CUT_CROSS_ENTROPY)
    yield Rival(QUACK.name, peers.quack, QUACK)
    if device == "cpu" and not quick:
        yield Rival(f"{OURS}, memory not kept", ours)  # in a process that is not set up for it
        yield Rival("full logits, memory kept", peers.plain, keeps_memory=True)
        yield Rival("full logits compiled, memory kept", peers.compiled, compiled=True, keeps_memory=True)


def ours() -> Loss:
    return lambda hidden, weight, target: ops.pixel_cross_entropy(hidden, weight, target)


def _contenders(case: Case, measured: str, present: tuple[Rival, ...]) -> Iterator[Contender]:
    torch.compiler.reset()
    # On the CPU as our training loop does.
    own = Rival(OURS, ours, keeps_memory=case.device.type == "cpu")
    for rival in (own, *present):
        build = partial(_build, case, measured, rival)
        facts = case.facts(measured) | {"keeps_freed_memory": rival.keeps_memory}
        verdict = case.checked.bound if rival is own else case.checked.plausible
        prepare = partial(_prepare, case, measured, rival, verdict)
        yield Contender(f"{case.name} {measured}", rival.name, prepare, facts, build)


def _build(case: Case, measured: str, rival: Rival) -> Call:
    if rival.keeps_memory:
        native.keep_freed_memory()
    return case.call(rival.loss(), measured)


def _prepare(
    case: Case, measured: str, rival: Rival, verdict: Callable[..., Verdict]
) -> tuple[Call, Verdict]:
    call = _build(case, measured, rival)
    if case.checked_rows == case.rows:
        found = verdict(call())
    else:
        found = verdict(case.checked.call(rival.loss(), measured)())
    if not found.correct:
        return call, found
    if case.device.type == "cuda":
        call, evidence = cuda_graph.capture(call)
        return call, found & Verdict(True, evidence)
    return call, found & resident.evidence(call)
