"""How fast a training step becomes with something taken away: measured, where the program gives its step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from imagen_fast.errors import InvalidInput

_WARM_UP, _CALLS = 3, 16


def measure(step: Callable[[], object]) -> tuple[float, float | None]:
    """Seconds of `step` without waiting for input and, in a program that uses a GPU, as one CUDA graph.

    Args:
        step: one training step on a batch that lies where the model does; it is carried out some 20 times on
            a CPU and 40 times on a GPU, weights and all. For a graph it must be possible to capture: without
            `.item()`, with an optimiser that is `capturable`.

    Raises:
        InvalidInput: `step` cannot be captured, and why.
    """
    on_gpu = torch.cuda.is_initialized()
    return _mean(step, on_gpu), _mean(_captured(step), on_gpu) if on_gpu else None


def _mean(call: Callable[[], object], on_gpu: bool) -> float:
    for _ in range(_WARM_UP):
        call()
    taken = []
    for _ in range(_CALLS):
        _finish(on_gpu)
        begun = time.perf_counter()
        call()
        _finish(on_gpu)
        taken.append(time.perf_counter() - begun)
    return statistics.fmean(taken)


def _finish(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


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
