"""Figures of a run from its recording: time, throughput, utilisation, and where a step's time goes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from imagen_fast.profiling.findings import Summary
from imagen_fast.profiling.recording import Op, Peaks, Recording, Series, Steps, Window

# The first steps compile and fill caches: this many, or a quarter of few, are left out.
_FIRST = 10
# A step that takes so many times the usual, waiting for data aside, was interrupted by something else.
PAUSE = 3.0
# Of the machine, what other programs use without being in anybody's way.
_LITTLE = 0.1


def summarise(recording: Recording) -> Summary:
    """Every figure that the recording allows."""
    made = Summary()
    steady = [without_first(steps) for steps in recording.steps if len(steps.end) >= 2]
    if steady:
        first = steady[0]
        made.steps = sum(len(steps.end) * steps.every for steps in recording.steps)
        made.step_seconds = statistics.median(first.seconds)
        if len(first.seconds) > 1:
            low, _, high = statistics.quantiles(first.seconds, method="inclusive")
            made.step_spread = high - low
        # Processes that only load are no training.
        alike = [steps for steps in steady if steps.boundary == first.boundary]
        images = sum(sum(steps.images) / sum(steps.seconds) for steps in alike)
        made.images_per_second = images or None
        watts = _watts(recording, first.end[0], first.end[-1])
        made.joules_per_image = watts / images if images and watts else None
    if recording.window is not None and made.step_seconds is not None:
        _utilisation(made, recording, statistics.fmean(_uninterrupted(steady[0])))
    made.shares = _shares(recording, steady)
    return made


def without_first(steps: Steps) -> Steps:
    skip = min(_FIRST, len(steps.end) // 4)
    kept = {name: getattr(steps, name)[skip:] for name in ("end", "seconds", "data", "data_cpu", "images")}
    return replace(steps, **kept)


def _work(steps: Steps) -> list[float]:
    return [seconds - data for seconds, data in zip(steps.seconds, steps.data, strict=True)]


def _usual(steps: Steps) -> float:
    return statistics.median(_work(steps))


def paused(steps: Steps) -> float:
    """The share of the time in which a step took much longer than steps do."""
    usual = _usual(steps)
    extra = sum(work - usual for work in _work(steps) if work > PAUSE * usual)
    return extra / sum(steps.seconds)


def _uninterrupted(steps: Steps) -> list[float]:
    """Seconds of the steps that were not interrupted."""
    usual = _usual(steps)
    kept = [s for s, work in zip(steps.seconds, _work(steps), strict=True) if work <= PAUSE * usual]
    return kept or steps.seconds


# Operations.


def _utilisation(made: Summary, recording: Recording, step_seconds: float) -> None:
    window = recording.window
    assert window is not None
    counted = [op for op in window.ops if op.operations is not None]
    if not counted:
        return
    made.operations_per_step = sum(op.operations or 0.0 for op in counted) / window.steps
    made.model_operations_per_step = sum(op.model_operations or 0.0 for op in counted) / window.steps
    peak = None if recording.peaks is None else _peak(recording.peaks, counted)
    if not peak:
        return
    products = [op for op in window.ops if op.kind == "matrix"]
    unknown = sum(op.seconds for op in products if op.operations is None) / sum(op.seconds for op in products)
    if unknown > _LITTLE:
        why = f"{unknown:.0%} of the time of products is in kernels without a formula, as compiled ones are"
        made.refused |= {"mfu": why, "hfu": why}
        return
    for name, operations in (("mfu", made.model_operations_per_step), ("hfu", made.operations_per_step)):
        share = operations / step_seconds / peak
        if share <= 1:
            setattr(made, name, share)
        else:
            made.refused[name] = f"{share:.0%} of the peak of {recording.peaks and recording.peaks.device}"


def prevailing(ops: Sequence[Op]) -> str | None:
    """The type in which most operations were carried out."""
    by_type: dict[str, float] = {}
    for op in ops:
        if op.dtype is not None and op.operations:
            by_type[op.dtype] = by_type.get(op.dtype, 0.0) + op.operations
    return max(by_type, key=lambda dtype: by_type[dtype]) if by_type else None


def _peak(peaks: Peaks, ops: Sequence[Op]) -> float | None:
    dtype = prevailing(ops)
    return None if dtype is None else peaks.operations.get(dtype)


def waits_for_memory(op: Op, peaks: Peaks | None) -> bool:
    """Whether it does fewer operations for a byte than the device can in the time that the byte takes."""
    if op.kind != "matrix":
        return True
    if peaks is None or not peaks.bandwidth or not op.operations or not op.bytes or op.dtype is None:
        return False
    peak = peaks.operations.get(op.dtype)
    return peak is not None and op.operations / op.bytes < peak / peaks.bandwidth


# Where the time goes.


def _shares(recording: Recording, steady: Sequence[Steps]) -> dict[str, float]:
    taken = taken_away(recording)
    shares = _of_steps(recording, steady[0]) if steady else _of_samples(recording)
    made = {cause: share * (1 - taken) for cause, share in shares.items()} | {"throttled": taken}
    return {cause: round(share, 4) for cause, share in made.items() if share > 0}


def _of_steps(recording: Recording, steps: Steps) -> dict[str, float]:
    total = sum(steps.seconds)
    waiting, pause = sum(steps.data) / total, paused(steps)
    parts = _of_window(recording, steps) if recording.window is not None else None
    if parts is None:
        rest = max(1 - waiting - pause, 0.0)
        parts = {"data": waiting, **{cause: share * rest for cause, share in _of_samples(recording).items()}}
    else:
        parts = {cause: share * (1 - pause) for cause, share in parts.items()}
    prepared = prepared_share(recording, steps)
    wait = parts.pop("data", 0.0)
    return parts | {"data": wait * (1 - prepared), "decoding": wait * prepared, "paused": pause}


def _of_window(recording: Recording, steps: Steps) -> dict[str, float]:
    """Shares of a step as it is without the profiler, which makes it longer where nothing is computed."""
    window = recording.window
    assert window is not None
    usual = _usual(steps)
    pairs = [
        (seconds, data)
        for seconds, data, work in zip(steps.seconds, steps.data, _work(steps), strict=True)
        if work <= PAUSE * usual
    ]
    step, wait = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    parts = {cause: taken / window.steps for cause, taken in _busy(window, recording.peaks).items()}
    # On a GPU work goes on while the host waits: only what is left of the step can be waiting.
    wait = min(wait, max(step - sum(parts.values()), 0.0)) if window.device == "cuda" else wait
    work = step - wait
    longer = max((window.seconds - window.timeline["data"]) / window.steps - work, 0.0)
    parts["launching"] = max(window.timeline["idle"] / window.steps - longer, 0.0)
    # What is slower or faster outside the window is so in all its parts.
    scale = work / max(sum(parts.values()), 1e-12)
    return {"data": wait / step, **{cause: taken * scale / step for cause, taken in parts.items()}}


def _busy(window: Window, peaks: Peaks | None) -> dict[str, float]:
    """Seconds by cause in which operations ran; thin products wait for memory, too."""
    line = window.timeline
    matrix = [op for op in window.ops if op.kind == "matrix"]
    thin = sum(op.seconds for op in matrix if waits_for_memory(op, peaks))
    share = thin / max(sum(op.seconds for op in matrix), 1e-12)
    return {
        "compute": line["matrix"] * (1 - share),
        "memory": line["matrix"] * share + line["memory"] + line["optimizer"],
        "copying": line["copy"],
        "communication": line["communication"],
    }


def _of_samples(recording: Recording) -> dict[str, float]:
    """Without a window: by what a GPU's own counters say, where it has them."""
    for gpu in recording.samples.gpus:
        tensor, memory, active = (
            mean(gpu.series, name) for name in ("tensor_active", "dram_active", "sm_active")
        )
        if tensor is None or memory is None or active is None:
            continue
        both = max(tensor + memory, 1e-12)
        return {
            "compute": active * tensor / both,
            "memory": active * memory / both,
            "unknown": max(1 - active, 0.0),
        }
    return {"unknown": 1.0}


def prepared_share(recording: Recording, steps: Steps) -> float:
    """Of waiting for input: how much of what could prepare batches was computing, 0 to 1.

    Little means that it waited itself, for storage or the network.
    """
    waited = sum(steps.data)
    if not waited:
        return 0.0
    cores = recording.machine.get("cores") or 1
    beside = min(max(steps.workers or 1, 1), cores)
    in_process = sum(steps.data_cpu) / waited / max(1 - (steps.delayed or 0.0), 0.1)
    host = recording.samples.host
    # Those that wait for a processor would compute.
    in_workers = (mean(host, "workers_cpu") or 0.0) + (mean(host, "workers_delayed") or 0.0)
    own_threads = in_process / (beside if in_process > 1 else 1)
    return min(max(own_threads, in_workers / beside if steps.workers else 0.0), 1.0)


def taken_away(recording: Recording) -> float:
    """The share of its speed that quotas, heat, power or other programs take from a run."""
    host = recording.samples.host
    quota = mean(host, "throttled") or 0.0
    slowed = [_slowed(gpu.series, gpu.facts.get("max_sm_clock")) for gpu in recording.samples.gpus]
    return max([quota, others(recording), *slowed])


def others(recording: Recording) -> float:
    """The share of the time in which training waited for a processor that other programs used."""
    host, cores = recording.samples.host, recording.machine.get("cores") or 1
    everything, own = mean(host, "machine_cpu"), mean(host, "cpu")
    if everything is None or own is None or everything - own < _LITTLE * cores:
        return 0.0
    return max((_delayed(steps, host) for steps in recording.steps), default=0.0)


def _delayed(steps: Steps, host: Series) -> float:
    """Of the time of a process that trains: it waited for a processor, or for workers that did."""
    own = steps.delayed or 0.0
    if steps.workers:
        waiting = sum(steps.data) / max(sum(steps.seconds), 1e-12)
        own += waiting * (mean(host, "workers_delayed") or 0.0) / steps.workers
    return min(own, 1.0)


def _slowed(series: Series, most: float | None) -> float:
    """Of a GPU: how far its clock was below the most it can, while something held it down."""
    throttled, clock = mean(series, "throttled"), mean(series, "sm_clock")
    if not throttled or clock is None or not most:
        return 0.0
    return throttled * max(1 - clock / most, 0.0)


def mean(series: Series, name: str) -> float | None:
    """Of the samples that there are."""
    values = [value for value in series.get(name, ()) if value is not None]
    return statistics.fmean(values) if values else None


def _watts(recording: Recording, begin: float, end: float) -> float:
    """Drawn by all GPUs between two moments, on average."""
    drawn = 0.0
    for gpu in recording.samples.gpus:
        readings = [
            (at, value)
            for at, value in zip(recording.samples.time, gpu.series.get("energy", ()), strict=False)
            if value is not None and begin <= at <= end
        ]
        if len(readings) > 1:
            drawn += (readings[-1][1] - readings[0][1]) / (readings[-1][0] - readings[0][0])
    return drawn
