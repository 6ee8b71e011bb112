"""How fast a training step becomes with something taken away: measured, where the program gives its step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.profiling.recording import Ceilings

_WARM_UP = 3


def measure(step: Callable[[], object], as_is: float, device: torch.device, calls: int = 16) -> Ceilings:
    """Time `step` without waiting for input, and on a GPU as one CUDA graph.

    Args:
        step: one training step on a batch that lies on the device; it is carried out, weights and all. On a
            GPU it must be possible to capture (no `.item()`, an optimiser that is `capturable`).
        as_is: seconds a step as the program runs.
        calls: timed calls of each, after a few to warm up.

    Raises:
        InvalidInput: `step` cannot be captured, and why.
    """
    same_batch = _mean(step, device, calls)
    graph = _mean(_captured(step), device, calls) if device.type == "cuda" else None
    return Ceilings(as_is, same_batch, graph, rounds=1)


def _mean(call: Callable[[], object], device: torch.device, calls: int) -> float:
    for _ in range(_WARM_UP):
        call()
    taken = []
    for _ in range(calls):
        _finish(device)
        begun = time.perf_counter()
        call()
        _finish(device)
        taken.append(time.perf_counter() - begun)
    return statistics.fmean(taken)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _captured(step: Callable[[], object]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # PyTorch asks for a warm-up beside the current stream
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        torch.cuda.synchronize()
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"the step cannot be captured as a CUDA graph: {reason}") from error
    return graph.replay
