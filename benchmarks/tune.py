"""Choose the block shapes of the attention kernels by the stopwatch, on the GPU that is here.

    python -m imagen_fast.benchmarks.tune --device cuda

From the present choice of each kernel the search goes to the fastest neighbour (a side, the warps doubled or
halved; a stage or a resident program more or less) until none is faster. A candidate that is not correct has
no time. Times are of captured launches with a cold second-level cache. The table goes where kernels read it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from imagen_fast.benchmarks import cuda_graph
from imagen_fast.benchmarks.attention_case import Case
from imagen_fast.benchmarks.machine import describe
from imagen_fast.benchmarks.measure import time_on_cuda
from imagen_fast.errors import ImagenFastError, InvalidInput
from imagen_fast.kernels import launch, masked_patch_attention
from imagen_fast.kernels import masked_patch_attention_tuned as tables
from imagen_fast.kernels.masked_patch_attention_shapes import Blocks

# One length of keys for each kind of row, one width for each tile.
KEYS = (49, 128, 197, 1024)
WIDTHS = (32, 64, 128)
TYPES = ("bf16", "fp32")
HEADS = 12
TOKENS = 2**15  # of all images: enough programs for every multiprocessor

SAMPLES = 15
ROUNDS = 3  # of the fastest against the present choice
GAIN = 0.98  # below it a time is a gain; above, noise

# The least and the most of each; 16 is the least side that a product takes.
RANGES = {"m": (16, 128), "n": (16, 256), "warps": (2, 16), "stages": (1, 4), "resident": (1, 8)}
COUNTED = {"stages", "resident"}  # the others are powers of two
# A kernel that holds all keys in one tile has no choice of `n`; only the forward's programs take many heads.
FIXED = {"attention_forward_short": {"n"}, "attention_backward_short": {"n", "resident"}}

Seconds = Callable[[Blocks], "float | None"]


def neighbours(kernel: str, blocks: Blocks) -> Iterator[Blocks]:
    """One step away in one direction."""
    for name, (least, most) in RANGES.items():
        value = getattr(blocks, name)
        for changed in (value - 1, value + 1) if name in COUNTED else (value // 2, value * 2):
            if least <= changed <= most and name not in FIXED.get(kernel, {"resident"}):
                yield replace(blocks, **{name: changed})


def search(kernel: str, start: Blocks, seconds: Seconds) -> tuple[Blocks, dict[Blocks, float | None]]:
    """The fastest that is reached from `start`, and the times of all that were asked; None: not correct."""
    known = {start: seconds(start)}
    best = start
    while True:
        around = list(neighbours(kernel, best))
        known |= {blocks: seconds(blocks) for blocks in around if blocks not in known}
        right = {blocks: known[blocks] for blocks in around if known[blocks] is not None}
        fastest = min(right, key=lambda blocks: right[blocks], default=best)
        if not _gains(known[fastest], known[best]):
            return best, known
        best = fastest


def _gains(seconds: float | None, before: float | None) -> bool:
    return seconds is not None and (before is None or seconds < GAIN * before)


def choose(kernel: str, present: Blocks, seconds: Seconds) -> dict[str, Any]:
    """The part of an entry that the stopwatch writes: the blocks, and the times that are their reason."""
    best, known = search(kernel, present, seconds)
    if best != present:
        # Once more, in turn: a search among noisy times is drawn to the lucky one.
        again = [(seconds(present), seconds(best)) for _ in range(ROUNDS)]
        times = [[time for time in column if time is not None] for column in zip(*again, strict=True)]
        known |= {blocks: statistics.median(t) for blocks, t in zip((present, best), times, strict=True) if t}
        best = best if _gains(known[best], known[present]) else present
    tried = sum(time is not None for time in known.values())
    return {
        "blocks": asdict(best),
        "seconds": known[best],
        "before": {"blocks": asdict(present), "seconds": known[present]},
        "correct": tried,
        "refused": len(known) - tried,
    }


@dataclass(frozen=True)
class Problem:
    """A case and the launcher that is timed on it."""

    case: Case
    backward: bool

    def run(self) -> Any:
        return self._backward() if self.backward else self._forward()

    def answer(self) -> tuple[torch.Tensor, ...]:
        """Nothing that an earlier candidate wrote survives."""
        return self._forward(), *self._backward()

    def _forward(self) -> torch.Tensor:
        q, k, v, _ = self.case.grid
        return masked_patch_attention.run_forward(q, k, v, *self._rows)

    def _backward(self) -> tuple[torch.Tensor, ...]:
        q, k, v, d_out = self.case.grid
        *gradients, _no_bias = masked_patch_attention.run_backward(d_out, q, k, v, *self._rows)
        return tuple(gradients)

    @property
    def _rows(self) -> tuple[Any, ...]:
        return *(None,) * 4, self.case.queries, self.case.keys, self.case.width**-0.5

    def kernels(self, capability: int) -> dict[str, Blocks]:
        """What it launches, with the present choice of blocks."""
        with launch.recording(capability), tables.asked() as blocks:
            self.run()
        return blocks

    def seconds(self, kernel: str) -> Seconds:
        def measure(blocks: Blocks) -> float | None:
            with tables.trying(kernel, blocks):
                try:
                    if not self.case.verdict(self.answer()).correct:
                        return None
                    call, _ = cuda_graph.capture(self.run)
                except Exception:  # Too much shared memory, or a shape that does not compile: no candidate.
                    return None
                samples = [time_on_cuda(call, cold=True).seconds for _ in range(SAMPLES)]
            return statistics.median(samples)

        return measure


def problems(device: torch.device) -> Iterator[Problem]:
    for keys, width, type_, backward in product(KEYS, WIDTHS, TYPES, (False, True)):
        case = Case("dense", max(TOKENS // keys, 1), keys, keys, HEADS, width, type_, device)
        yield Problem(case, backward)


def tune(device: torch.device, only: str, tell: Callable[[str], None] = print) -> Iterator[dict[str, Any]]:
    """An entry for each kernel of the problems with `only` in their case's name."""
    capability = launch.capability(device)
    for problem in problems(device):
        case = problem.case
        if only not in case.name:
            continue
        for kernel, present in problem.kernels(capability).items():
            where = tables.key(kernel, case.keys, case.width, case.dtype)
            entry = where._asdict() | choose(kernel, present, problem.seconds(kernel)) | {"case": case.name}
            tell(f"{kernel}, {case.name}: {entry['blocks']}, {entry['seconds']} s; before {entry['before']}")
            yield entry


def write(file: Path, entries: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Into the table that is there: what was not tuned now stays."""
    before = json.loads(file.read_text())["entries"] if file.exists() else []
    kept = {tuple(entry[name] for name in tables.Key._fields): entry for entry in before + entries}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine, "entries": list(kept.values())}, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m imagen_fast.benchmarks.tune", description=__doc__)
    parser.add_argument("--device", choices=("cuda",), default="cuda")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases with this in their name, such as N197"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the table here, not where it is read"
    )
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise InvalidInput("tuning times kernels on a GPU, but PyTorch finds no CUDA device here")
    device = torch.device(given.device)
    file = given.json or tables.path(launch.capability(device))
    entries = list(tune(device, given.only))
    write(file, entries, describe(device))
    print(f"{len(entries)} entries written to {file}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ImagenFastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
