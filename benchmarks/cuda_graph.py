"""A call as a CUDA graph: kernels of microseconds are then measured, and not Python that launches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from imagen_fast.benchmarks.measure import Call

WARMUP = 3  # compiling and choosing algorithms happen before the capture


@dataclass(frozen=True)
class Replay:
    """The captured work; it reads and writes the tensors that `call` holds."""

    graph: Any
    call: Call

    def __call__(self) -> None:
        self.graph.replay()


def capture(call: Call) -> tuple[Call, dict[str, Any]]:
    """What to time, and how that came about with the most bytes that one call allocates.

    A call that waits for the device cannot be captured; it stays as it is.
    """
    peak = _warm_up(call)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError as error:
        torch.cuda.synchronize()
        why = str(error).splitlines()[0]
        return call, {"timed": f"as launched from Python: {why}", "peak_bytes_of_a_call": peak}
    return Replay(graph, call), {"timed": "as a CUDA graph", "peak_bytes_of_a_call": peak}


def _warm_up(call: Call) -> int:
    """On a stream of its own, as PyTorch asks before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            call()
            torch.cuda.synchronize()
    torch.cuda.current_stream().wait_stream(stream)
    return torch.cuda.max_memory_allocated() - before
