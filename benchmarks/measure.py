"""Interleaved timing: everyone runs once a round, so that a slow spell of the machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from imagen_fast.benchmarks import resident

Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure: `least` rounds always, more while the next fits into `seconds`, `most` at most."""

    warmup: int
    least: int
    most: int
    seconds: float


class Sample(NamedTuple):
    """One call: seconds, seconds of all threads together, and the most memory at once.

    `peak_bytes` is, on a GPU, what was allocated beyond what lay there; in a process apart, all that was
    resident, weights and libraries included; None where several share a heap or the platform cannot tell.
    """

    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


Sampler = Callable[[], Sample]


class Failed(Exception):
    """A contender that cannot go on; in one line, why."""

    @classmethod
    def because(cls, error: Exception) -> Failed:
        if isinstance(error, Failed):
            return error
        return cls(f"{type(error).__name__}: {error}".splitlines()[0])


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


def sampler(call: Call, device: torch.device, cold: bool = False, alone: bool = False) -> Sampler:
    """What takes one sample of `call`.

    Args:
        cold: see `time_on_cuda`.
        alone: see `time_on_cpu`.
    """
    if device.type == "cuda":
        return partial(time_on_cuda, call, cold)
    return partial(time_on_cpu, call, alone)


def time_on_cpu(call: Call, alone: bool = False) -> Sample:
    """Where `call` is alone in its process, with the memory that this takes."""
    counted = alone and resident.reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(seconds, cpu_seconds, resident.peak() if counted else None)


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


def interleave(samplers: Mapping[str, Sampler], effort: Effort) -> dict[str, Timing | Failed]:
    """Time all in rounds, in rotating order: nobody always runs in the same neighbour's caches.

    One that fails leaves the race, and the others go on.
    """
    failed: dict[str, Failed] = {}

    def ask(names: Sequence[str]) -> dict[str, Sample]:
        samples = {}
        for name in names:
            try:
                samples[name] = samplers[name]()
            except Exception as error:
                failed[name] = Failed.because(error)
        return samples

    def racing() -> list[str]:
        return [name for name in samplers if name not in failed]

    for _ in range(effort.warmup):
        ask(racing())
    rounds: list[dict[str, Sample]] = []
    began = time.perf_counter()
    for done in range(effort.most):
        if done >= effort.least and (time.perf_counter() - began) * (done + 1) / done > effort.seconds:
            break
        names = racing()
        first = done % max(len(names), 1)
        rounds.append(ask(names[first:] + names[:first]))
    return {name: failed.get(name) or Timing(tuple(taken[name] for taken in rounds)) for name in samplers}
