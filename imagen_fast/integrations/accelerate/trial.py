"""A quick trial on this machine: does ours pay for work of this size?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# In turn, so that a slow spell of the machine hits both; fewer where one takes long.
ROUNDS, LEAST_ROUNDS, SECONDS = 7, 3, 1.0
# Images, and fewer where the scores of all pairs of their tokens would be more than these.
IMAGES, PAIRS = 8, 8 * 400**2


@dataclass(frozen=True)
class Work:
    """Something that a module does, on made-up inputs.

    Args:
        theirs, ours: from the inputs to one tensor.
        inputs: those of which a gradient is wanted have `requires_grad`.
        autocast: the type that it runs under; None without.
    """

    theirs: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    inputs: Sequence[Any]
    autocast: torch.dtype | None = None


def images_of(tokens: int) -> int:
    """How many images of so many tokens a trial takes."""
    return max(1, min(IMAGES, PAIRS // tokens**2))


def gain(work: Work) -> float:
    """How many times as fast ours is, forward and backward: a ratio of medians."""
    device = next(x.device for x in work.inputs if isinstance(x, Tensor))
    passes = [_both_ways(run, work, device) for run in (work.theirs, work.ours)]
    rounds = LEAST_ROUNDS
    for _ in range(2):
        began = time.perf_counter()
        for run in passes:
            run()
        _wait(device)
        took = time.perf_counter() - began
        rounds = max(LEAST_ROUNDS, min(ROUNDS, int(SECONDS / took)))
        if rounds == LEAST_ROUNDS:
            break
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        # Whoever comes second finds the other's data in the caches.
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            _wait(device)
            began = time.perf_counter()
            passes[which]()
            _wait(device)
            seconds[which].append(time.perf_counter() - began)
    theirs, ours = map(statistics.median, seconds)
    return theirs / ours


def _both_ways(run: Callable[..., Tensor], work: Work, device: torch.device) -> Callable[[], None]:
    wanted = [x for x in work.inputs if isinstance(x, Tensor) and x.requires_grad]
    gradient: list[Tensor] = []

    def both() -> None:
        with torch.autocast(device.type, work.autocast, enabled=work.autocast is not None):
            out = run(*work.inputs)
        if not gradient:
            gradient.append(torch.randn_like(out))
        torch.autograd.grad(out, wanted, gradient[0])

    return both


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
