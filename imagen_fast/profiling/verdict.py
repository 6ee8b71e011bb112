"""The bottleneck of a run: the cause that takes most of its time, with what speaks for it and against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial

from imagen_fast.profiling.changes import changes
from imagen_fast.profiling.findings import BOTTLENECKS, Summary, Verdict
from imagen_fast.profiling.numbers import text
from imagen_fast.profiling.recording import Recording
from imagen_fast.profiling.summary import mean, others, prevailing

_time = partial(text, unit="seconds")

# Steps after which more of them make nothing surer.
_ENOUGH_STEPS = 20
# Without a window the work itself is only guessed at.
_WITHOUT_WINDOW = 0.7
# A cause with this share of the time is worth a word against.
_WORTH_A_WORD = 0.2
# What a quota, heat or other programs take is the verdict where it is more than this: everything else
# that could be gained is gained of what they leave.
_TAKEN = 0.25


def judge(recording: Recording, summary: Summary) -> Verdict:
    """What holds the run up most."""
    ranked = sorted(summary.shares.items(), key=lambda share: -share[1])
    if summary.shares.get("throttled", 0.0) > _TAKEN:
        ranked.sort(key=lambda share: share[0] != "throttled")
    if not ranked or ranked[0][0] == "unknown":
        why = recording.absent.get("steps", "no step was long enough to tell")
        return Verdict("unknown", 0.0, _sentences([why]), [], changes(recording, summary))
    cause, share = ranked[0]
    second = ranked[1] if len(ranked) > 1 else (cause, 0.0)
    against = [_says(other, of, recording) for other, of in ranked[1:] if of >= _WORTH_A_WORD]
    return Verdict(
        cause,
        round(_confidence(recording, summary, share, second[1]), 2),
        _sentences([_says(cause, share, recording), *_EVIDENCE[cause](recording, summary)]),
        _sentences(against + _contradictions(cause, recording)),
        changes(recording, summary),
    )


def _confidence(recording: Recording, summary: Summary, share: float, second: float) -> float:
    """How clearly the first cause leads, less where little was recorded."""
    lead = share / (share + second)
    steps = min(1.0, math.sqrt(summary.steps / _ENOUGH_STEPS))
    return lead * steps * (1.0 if recording.window is not None else _WITHOUT_WINDOW)


def _says(cause: str, share: float, recording: Recording) -> str:
    meaning = BOTTLENECKS[cause].partition(": ")[2]
    if cause == "throttled":
        return f"{share:.0%} of its speed is taken away: {meaning}"
    whose = "the GPU's" if recording.window is not None and recording.window.device == "cuda" else "the"
    return f"{share:.0%} of {whose} time: {meaning}"


def _sentences(said: list[str]) -> list[str]:
    return [f"{each[0].upper()}{each[1:]}." for each in said]


# A sentence or more for each cause, from what was measured independently of the shares.

Sentences = list[str]


def _data(recording: Recording, summary: Summary) -> Sentences:
    said = _waiting(recording)
    stored = mean(recording.samples.host, "in_storage")
    if stored is not None and stored > 0.05:
        said.append(f"{stored:.0%} of its processes waited in storage at a time")
    busy = mean(recording.samples.host, "cpu")
    cores = recording.machine.get("cores")
    if busy is not None and cores:
        said.append(f"it kept {busy:.2g} of {cores} processors busy, so those were not what was missing")
    return said + _ceiling(recording)


def _decoding(recording: Recording, summary: Summary) -> Sentences:
    said = _waiting(recording)
    steps = recording.steps[0]
    if steps.workers:
        busy = mean(recording.samples.host, "workers_cpu")
        beside = f" in {steps.workers} {'worker' if steps.workers == 1 else 'workers'}"
        if busy:
            said.append(f"what prepares batches{beside} kept {busy:.2g} processors busy")
    else:
        share = sum(steps.data_cpu) / max(sum(steps.data), 1e-12)
        said.append(
            f"batches are prepared in the training process itself: {share:.0%} of the waiting was computing"
        )
    return said + _ceiling(recording)


def _waiting(recording: Recording) -> Sentences:
    steps = recording.steps[0]
    each = statistics.fmean(steps.data)
    return [f"a step waits {_time(each)} for its batch, of {_time(statistics.fmean(steps.seconds))}"]


def _ceiling(recording: Recording) -> Sentences:
    found = recording.ceilings
    if found is None or found.in_memory is None:
        return []
    return [
        f"with batches that lie in memory a step takes {_time(found.in_memory)}, and {_time(found.as_is)} as "
        f"it is: {found.as_is / found.in_memory:.2f} times as fast (measured)"
    ]


def _copying(recording: Recording, summary: Summary) -> Sentences:
    return _heaviest(recording, "copy")


def _launching(recording: Recording, summary: Summary) -> Sentences:
    window = recording.window
    if window is None:
        return []
    each = _time(sum(op.seconds for op in window.ops) / max(window.launches, 1))
    what = "kernels" if window.device == "cuda" else "operations"
    said = [f"{window.launches / window.steps:,.0f} {what} a step, {each} each on average"]
    if window.syncs:
        said.append(f"the host waited for the GPU {window.syncs / window.steps:.1f} times a step")
    return said + _graph(recording)


def _graph(recording: Recording) -> Sentences:
    found = recording.ceilings
    if found is None or found.graph is None:
        return []
    return [f"replayed as one CUDA graph a step takes {_time(found.graph)} instead of {_time(found.as_is)}"]


def _memory(recording: Recording, summary: Summary) -> Sentences:
    said = _heaviest(recording, "memory", "optimizer")
    for gpu in recording.samples.gpus:
        dram, tensor = mean(gpu.series, "dram_active"), mean(gpu.series, "tensor_active")
        if dram is not None and tensor is not None:
            said.append(f"GPU {gpu.index}: memory {dram:.0%}, tensor cores {tensor:.0%} of their peak")
    return said


def _compute(recording: Recording, summary: Summary) -> Sentences:
    said = _heaviest(recording, "matrix")
    if summary.hfu is not None and recording.peaks is not None:
        dtype = prevailing(recording.window.ops if recording.window else [])
        said.append(f"{summary.hfu:.0%} of the peak of {recording.peaks.device} in {dtype} (hardware FLOPs)")
    for gpu in recording.samples.gpus:
        tensor = mean(gpu.series, "tensor_active")
        if tensor is not None:
            said.append(f"GPU {gpu.index}: tensor cores {tensor:.0%} of their peak")
    return said


def _communication(recording: Recording, summary: Summary) -> Sentences:
    world = max(steps.world for steps in recording.steps)
    return [f"{world} processes train together", *_heaviest(recording, "communication")]


def _throttled(recording: Recording, summary: Summary) -> Sentences:
    said = []
    quota = mean(recording.samples.host, "throttled")
    if quota:
        said.append(f"{quota:.0%} of the time a CPU quota stopped the program")
    if share := others(recording):
        said.append(f"training waited {share:.0%} of the time for a processor, while other programs ran")
    for gpu in recording.samples.gpus:
        reasons = [f"{name} {share:.0%}" for name, share in gpu.throttle_reasons.items() if share > 0.01]
        if reasons:
            said.append(f"GPU {gpu.index} was slowed by {', '.join(reasons)} of the time")
    return said


def _paused(recording: Recording, summary: Summary) -> Sentences:
    steps = recording.steps[0]
    usual = statistics.median(steps.seconds)
    longest = max(steps.seconds)
    return [f"the longest step took {_time(longest)}, the usual one {_time(usual)}"]


def _heaviest(recording: Recording, *kinds: str) -> Sentences:
    window = recording.window
    if window is None:
        return []
    of_kind = sorted((op for op in window.ops if op.kind in kinds), key=lambda op: -op.seconds)[:3]
    return [
        f"the operation {op.name} took {op.seconds / window.seconds:.0%} of the window, in {op.calls} calls"
        for op in of_kind
    ]


_EVIDENCE: dict[str, Callable[[Recording, Summary], Sentences]] = {
    "data": _data,
    "decoding": _decoding,
    "copying": _copying,
    "launching": _launching,
    "memory": _memory,
    "compute": _compute,
    "communication": _communication,
    "throttled": _throttled,
    "paused": _paused,
}


def _contradictions(cause: str, recording: Recording) -> Sentences:
    """What the machine's own counters say against it."""
    said = []
    if cause in ("data", "decoding", "launching"):
        for gpu in recording.samples.gpus:
            busy = mean(gpu.series, "utilisation")
            if busy is not None and busy > 0.9:
                said.append(f"GPU {gpu.index} ran a kernel {busy:.0%} of the time")
    found = recording.ceilings
    tried = cause in ("data", "decoding") and found is not None and found.in_memory is not None
    if tried and found and found.in_memory and found.in_memory > 0.9 * found.as_is:
        said.append("with batches that lay in memory a step was hardly faster")
    return said
