"""Interleaved timing: everyone runs once a round, so that a slow spell of the machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure: `least` rounds always, more while the next fits into `seconds`, `most` at most."""

    warmup: int
    least: int
    most: int
    seconds: float


class Sample(NamedTuple):
    """One call: seconds, seconds of all threads together, most bytes allocated beyond what lay there."""

    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Timing:
    """The calls of one implementation, in the order of the rounds."""

    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def spread(self) -> float:
        """The interquartile range."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles([sample.seconds for sample in self.samples], method="inclusive")
        return high - low

    @property
    def cpu_median(self) -> float | None:
        known = [sample.cpu_seconds for sample in self.samples if sample.cpu_seconds is not None]
        return statistics.median(known) if known else None

    @property
    def peak_bytes(self) -> int | None:
        return max((s.peak_bytes for s in self.samples if s.peak_bytes is not None), default=None)


def time_on_cpu(call: Call) -> Sample:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def time_on_cuda(call: Call, cold: bool = False) -> Sample:
    """Between two events on the current stream: the device's work and its waiting for launches.

    With `cold` the second-level cache holds nothing of the call's when it begins.
    """
    if cold:
        # Twice the cache, so that no replacement policy keeps an old line.
        size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        torch.empty(size, dtype=torch.uint8, device="cuda").zero_()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return Sample(start.elapsed_time(end) / 1000, None, torch.cuda.max_memory_allocated() - before)


def interleave(
    calls: Mapping[str, Call], effort: Effort, device: torch.device, cold: bool = False
) -> dict[str, Timing]:
    """Time all `calls` in rounds, in rotating order: nobody always runs in the same neighbour's caches.

    Args:
        cold: on a GPU, empty the second-level cache before each call (for kernels, not for whole steps).
    """
    names = list(calls)
    for name in names * effort.warmup:
        calls[name]()
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    began = time.perf_counter()
    for done in range(effort.most):
        if done >= effort.least and (time.perf_counter() - began) * (done + 1) / done > effort.seconds:
            break
        first = done % max(len(names), 1)
        for name in names[first:] + names[:first]:
            call = calls[name]
            samples[name].append(time_on_cuda(call, cold) if device.type == "cuda" else time_on_cpu(call))
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}
