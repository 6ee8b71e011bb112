"""Masked-patch attention beside PyTorch's attention and other kernels: each use, and a grid of plain shapes.

Everyone starts from the same tensors, in the layout that its user has: SDPA on the full or the padded grid
with a boolean mask, kernels for packed rows on packed rows. Forward and backward are timed as one pass, since
what a kernel saves in one it may have to spend in the other; a full run times the forward alone too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from imagen_fast import native, ops
from imagen_fast.benchmarks import cuda_graph, resident
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD, SEED, Attention, Case, LayoutName
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import (
    Absence,
    Peer,
    compiler_absence,
    flex_attention,
    memory_absence,
    packed,
    sdpa,
    try_out,
)

Build = Callable[[Case], Attention]

QUICK = Effort(warmup=1, least=3, most=15, seconds=1.5)
FULL = Effort(warmup=2, least=9, most=60, seconds=6)
GRID = Effort(warmup=1, least=5, most=100, seconds=2)

# An image of 224 pixels in patches of 16, and its class token, which is never hidden.
TOKENS = 197
HIDDEN_SHARE = 0.75

# Where ours must never be slower than PyTorch's own choice by more than 5%.
GRID_TOKENS = (16, 49, 64, 128, 197, 256, 512, 1024, 2048)
GRID_WIDTHS = (32, 64, 80, 128)
GRID_HEADS = 4
GRID_OPERATIONS = 5e8  # forward and backward: some milliseconds on two cores
GRID_IMAGES = 512


class Rival(NamedTuple):
    """A peer in one of its modes.

    Args:
        build: from a case to its attention in that layout; what depends on masks and lengths is made here.
        trial: as `build`, but tried on one image beforehand to hear whether the peer refuses the case.
        quick: takes part in a quick run, which compiles nothing on a CPU.
        score_bytes: how many bytes it holds at once for each score, where that may be more than a GPU has.
    """

    name: str
    layout: LayoutName
    build: Build
    trial: Build | None = None
    peer: Peer | None = None
    quick: bool = False
    score_bytes: int = 0


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    wanted = tuple(rivals(device.type, quick))
    for case in cases(device, quick):
        for measured in (BOTH,) if quick else (BOTH, FORWARD):
            yield contest(case, measured, wanted, QUICK if quick else FULL)
    if device.type == "cpu" and not quick:
        for case in grid(device):
            yield contest(case, BOTH, (SDPA,), GRID)


def contest(case: Case, measured: str, wanted: tuple[Rival, ...], effort: Effort) -> Contest:
    absent = {rival: absence for rival in wanted if (absence := _absence(rival, case)) is not None}
    present = [rival for rival in wanted if rival not in absent]
    return Contest(
        f"{case.name} {measured}",
        measured,
        partial(_contenders, case, measured, present),
        effort,
        tuple(absent.values()),
        cold=True,
    )


# --- the cases ----------------------------------------------------------------------------------------


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    return _cpu_cases(device, quick) if device.type == "cpu" else _cuda_cases(device, quick)


def _cpu_cases(device: torch.device, quick: bool) -> Iterator[Case]:
    types = ("bf16", "fp32")
    heads = ((12, 64),) if quick else ((12, 64), (16, 32))
    for rows, (h, d), type_ in product(("visible", "all"), heads, types):
        yield in_place(rows, 16, TOKENS, h, d, type_, device)
    for (n, h, d), type_ in product([(49, 12, 64), *((TOKENS, *shape) for shape in heads)], types):
        yield Case("packed", 16, n, n, h, d, type_, device, "packed")
    for type_ in types[: 1 if quick else None]:
        yield ragged(512, 6, 64, type_, device)
        yield Case("cross", 16, 147, 50, 16, 32, type_, device, "packed")


def _cuda_cases(device: torch.device, quick: bool) -> Iterator[Case]:
    for n in (49, TOKENS) if quick else (49, TOKENS, 256, 1024):
        yield Case("dense", 256, n, n, 12, 64, "bf16", device)
    for rows in ("visible", "all"):
        yield in_place(rows, 256, TOKENS, 12, 64, "bf16", device)
    for images in (512,) if quick else (512, 8192):
        yield ragged(images, 6, 64, "bf16", device)
    yield Case("cross", 256, 147, 50, 16, 32, "bf16", device, "packed")


def in_place(
    rows: Literal["all", "visible"],
    images: int,
    tokens: int,
    heads: int,
    width: int,
    type_: str,
    device: torch.device,
    hidden_share: float = HIDDEN_SHARE,
) -> Case:
    """Every image hides its own patches, as many as the others; token 0 is always seen."""
    noise = torch.rand(images, tokens - 1, generator=torch.Generator().manual_seed(SEED))
    shown = tokens - 1 - round(hidden_share * (tokens - 1))
    seen = torch.ones(images, tokens, dtype=torch.bool)
    seen[:, 1:] = noise.argsort(1).argsort(1) < shown
    sizes = (images, tokens, tokens, heads, width, type_, device)
    return Case(f"in-place {rows}-rows", *sizes, "grid", seen, rows, hidden_share)


def ragged(images: int, heads: int, width: int, type_: str, device: torch.device) -> Case:
    """Lengths from 20 to 80; each has its mirror about 50, so that the tokens are those of a dense 50."""
    half = torch.randint(20, 81, (images // 2,), generator=torch.Generator().manual_seed(SEED))
    lengths = torch.cat([half, 100 - half])
    seen = torch.arange(80) < lengths[:, None]
    return Case("packed", images, 80, 80, heads, width, type_, device, "packed", seen, "visible")


def grid(device: torch.device) -> Iterator[Case]:
    for n, d, type_ in product(GRID_TOKENS, GRID_WIDTHS, ("bf16", "fp32")):
        images = round(GRID_OPERATIONS / (14 * GRID_HEADS * n * n * d))
        yield Case("dense", min(max(images, 1), GRID_IMAGES), n, n, GRID_HEADS, d, type_, device)


# --- who takes part -----------------------------------------------------------------------------------


def _contenders(case: Case, measured: str, present: list[Rival]) -> Iterator[Contender]:
    # What earlier contests compiled counts against the limit of one function's versions.
    torch.compiler.reset()
    name = f"{case.name} {measured}"
    facts = case.facts(measured)
    yield Contender(name, OURS, partial(_prepare, case, measured, case.ours, _ours(case.ours)), facts)
    for own in _own(case):
        mode = "packed" if case.hidden_share else "dense"
        prepare = partial(_prepare, own, measured, own.ours, _ours(own.ours))
        yield Contender(name, f"{OURS} {mode}", prepare, own.facts(measured))
    for rival in present:
        yield Contender(name, rival.name, partial(_prepare_rival, case, measured, rival), facts)


def _ours(layout: LayoutName) -> Build:
    return lambda case: partial(ops.masked_patch_attention, context=case.context(layout))


def _own(case: Case) -> Iterator[Case]:
    """Our own kernel where it has it easier: only the visible tokens, or as many tokens in equal lengths."""
    if case.use == "in-place visible-rows":
        yield replace(case, ours="packed")
    elif case.use == "packed" and case.seen is not None:
        tokens = int(case.key_lengths.sum()) // case.images
        yield replace(case, queries=tokens, keys=tokens, seen=None)


def _prepare(case: Case, measured: str, layout: LayoutName, build: Build) -> tuple[Call, Verdict]:
    if case.device.type == "cpu":
        # For everyone here: else whoever allocates waits for page faults, as many as it happens to meet.
        native.keep_freed_memory()
    call = getattr(case, layout).call(build(case), measured)
    verdict = case.verdict(call())
    if not verdict.correct:
        return call, verdict
    if case.device.type == "cpu":
        return call, verdict & resident.evidence(call)
    call, evidence = cuda_graph.capture(call)
    return call, verdict & Verdict(True, evidence)


def _prepare_rival(case: Case, measured: str, rival: Rival) -> tuple[Call, Verdict]:
    if (trial := rival.trial) is not None:
        one = replace(case, images=1, seen=None if case.seen is None else case.seen[:1])
        try_out(
            f"{rival.name} ({case.use}, {measured})",
            lambda: getattr(one, rival.layout).call(trial(one), measured)(),
        )
    return _prepare(case, measured, rival.layout, rival.build)


def _absence(rival: Rival, case: Case) -> Absence | None:
    """Why a peer takes no part; whether it refuses the case is heard when it is prepared."""
    device = case.device.type
    if rival.peer is not None and (absence := rival.peer.absence(device)) is not None:
        return absence
    scores = case.images * case.heads * case.queries * case.keys
    if absence := memory_absence(rival.name, case.name, rival.score_bytes * scores, device):
        return absence
    return compiler_absence(rival.name, device, rival.quick) if "compiled" in rival.name else None


def _sdpa(backend: SDPBackend | None = None, compiled: bool = False) -> Build:
    return lambda case: sdpa.attention(case.mask(), backend, compiled)


def _flex(builds_mask: bool = False, compiled: bool = True) -> Build:
    def build(case: Case) -> Attention:
        seen = None if case.seen is None else case.seen.to(case.device)
        return flex_attention.attention(seen, case.queries, case.keys, builds_mask, compiled)

    return build


def _packed(make: Callable[[Tensor, Tensor, torch.device], Attention]) -> Build:
    return lambda case: make(case.query_lengths, case.key_lengths, case.device)


SDPA = Rival("SDPA", "grid", _sdpa())


def rivals(device: str, quick: bool) -> Iterator[Rival]:
    yield SDPA
    yield Rival("SDPA math", "grid", _sdpa(SDPBackend.MATH), score_bytes=sdpa.MATH_BYTES)
    yield Rival("SDPA compiled", "grid", _sdpa(compiled=True), quick=quick)
    for peer, backend in sdpa.FORCED.items():
        yield Rival(peer.name, "grid", _sdpa(backend), trial=_sdpa(backend), peer=peer)
    # On the CPU there is none of its kernels to compile for a backward, which the trial finds out.
    trial = _flex(compiled=False) if device == "cpu" else None
    yield Rival("FlexAttention compiled", "grid", _flex(), trial, quick=quick)
    if device == "cuda":
        yield Rival("FlexAttention compiled, builds its mask", "grid", _flex(builds_mask=True))
    for peer, make in packed.KERNELS.items():
        yield Rival(peer.name, "packed", _packed(make), trial=_packed(make), peer=peer)
