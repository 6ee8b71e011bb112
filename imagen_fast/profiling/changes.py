"""What to try: each change takes away a part of a cause's share of the time; its gain follows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from imagen_fast.profiling.findings import Change, Summary
from imagen_fast.profiling.recording import Recording
from imagen_fast.profiling.summary import PAUSE, mean, prevailing

# Of an engine that does nothing.
_IDLE = 0.05
# Below this gain it is not worth the work.
_LEAST_GAIN = 1.03
_MOST = 3
# Of changes without a number, only those are told that concern at least this share of the time.
_CHIEF = 0.4

# Parts of a cause's time that a change takes away where nothing tells how much; each is a plain guess on the
# cautious side.
_HALF = 0.5
_MOST_OF_IT = 0.8
# Our decoder beside torchvision's on one thread: docs/decode-cpu.md.
_DECODED_FASTER = 2.6
# PyTorch's fused AdamW beside its loop, on a CPU (404 and 139 ms for 112 million weights).
_FUSED_OPTIMIZER = 0.65


def changes(recording: Recording, summary: Summary) -> list[Change]:
    """Those with the largest gain, at most three."""
    found = [
        change
        for cause, share in summary.shares.items()
        for change in _OF.get(cause, _nothing)(recording, summary, share)
        if (share >= _CHIEF if change.gain is None else change.gain >= _LEAST_GAIN)
    ]
    # What has no number goes last, but is told.
    ordered = sorted(found, key=lambda change: -(change.gain or 0.0))
    # What helps against two causes is told once, with its larger gain.
    once: dict[str, Change] = {}
    for change in ordered:
        once.setdefault(change.what, change)
    return list(once.values())[:_MOST]


def _gain(share: float, taken: float) -> float:
    """How many times as fast a step is without a part of a share of its time (Amdahl 1967)."""
    return round(1 / max(1 - share * taken, 1e-3), 2)


def _estimated(what: str, why: str, share: float, taken: float) -> Change:
    """Where nothing tells how much of the share it takes away."""
    return Change(what, why, _gain(share, taken), "estimated")


Made = Iterator[Change]


def _nothing(recording: Recording, summary: Summary, share: float) -> Made:
    return iter(())


def _all_waiting(recording: Recording, summary: Summary, share: float) -> tuple[float, str]:
    """The gain of never waiting for input: measured where that was tried."""
    found = recording.ceilings
    chief = max(("data", "decoding"), key=lambda cause: summary.shares.get(cause, 0.0))
    if found is not None and found.in_memory and chief == "data":
        return round(found.as_is / found.in_memory, 2), "measured"
    return _gain(share, 1.0), "computed"


def _data(recording: Recording, summary: Summary, share: float) -> Made:
    gain, basis = _all_waiting(recording, summary, share)
    yield Change(
        "keep the data nearer: in memory, on a local disk, or in tar shards that are read in order",
        "storage or the network delivers batches more slowly than they are used up",
        gain,
        basis,
    )
    workers = recording.steps[0].workers or 0
    who = f"more workers than {workers}" if workers else "workers beside the training"
    yield Change(
        f"read further ahead: {who}, and a larger prefetch_factor",
        "while one reader waits for storage, others can wait at the same time",
        _gain(share, _HALF),
        "estimated",
    )


def _decoding(recording: Recording, summary: Summary, share: float) -> Made:
    yield _estimated(
        "decode with imagen_fast.data: Loader, or decode_batch in a collate_fn",
        "it decodes only what a view shows, and resizes and normalises in the same pass",
        share,
        1 - 1 / _DECODED_FASTER,
    )
    steps, cores = recording.steps[0], recording.machine.get("cores") or 1
    idle = cores - (mean(recording.samples.host, "machine_cpu") or cores)
    if not steps.workers and cores > 1:
        # The training process computes; each worker adds one to what decodes at the same time.
        beside = share / (cores - 1)
        gain = round(1 / max(1 - share, beside, 1e-3), 2)
        yield Change(
            f"num_workers={cores - 1} in the DataLoader",
            "batches are prepared in the training process, which computes nothing meanwhile",
            gain,
            "computed",
        )
    elif steps.workers and idle >= 1:
        yield _estimated(
            f"num_workers={steps.workers + int(idle)} instead of {steps.workers}",
            f"{idle:.1f} processors are idle",
            share,
            idle / (idle + steps.workers),
        )
    engine = [busy for gpu in recording.samples.gpus if (busy := mean(gpu.series, "jpeg")) is not None]
    if engine and max(engine) < _IDLE:
        yield _estimated(
            "decode on the GPU: decode_batch(..., device='cuda')",
            "its JPEG engine lies idle",
            share,
            _MOST_OF_IT,
        )


def _copying(recording: Recording, summary: Summary, share: float) -> Made:
    if recording.window is not None and recording.window.device == "cuda":
        yield _estimated(
            "pin_memory=True in the DataLoader and .to(device, non_blocking=True)",
            "copies then run beside the computation",
            share,
            _MOST_OF_IT,
        )
    yield _estimated(
        "keep tensors in one type and layout through the step, and copy bytes (uint8) instead of floats",
        "copies between types, layouts and devices compute nothing",
        share,
        _HALF,
    )


def _launching(recording: Recording, summary: Summary, share: float) -> Made:
    found = recording.ceilings
    on_gpu = recording.window is not None and recording.window.device == "cuda"
    if on_gpu:
        measured = found is not None and found.graph
        yield Change(
            "torch.compile(mode='reduce-overhead'), or CUDA graphs",
            "the GPU waits for kernels to be launched one by one",
            round(found.as_is / found.graph, 2) if found and found.graph else _gain(share, _MOST_OF_IT),
            "measured" if measured else "estimated",
        )
        if recording.window is not None and recording.window.syncs:
            syncs = recording.window.syncs / recording.window.steps
            yield Change(
                "read losses and metrics (.item(), .cpu(), print) every hundredth step only",
                f"the host waits for the GPU {syncs:.1f} times a step",
                None,
                "computed",
            )
    elif not _compiled(recording):
        yield _estimated(
            "torch.compile the model",
            "Python and the dispatcher take the time between operations that are small",
            share,
            _HALF,
        )
    yield _estimated(
        "a batch twice as large", "as many operations are handed out for twice the images", share, _HALF
    )


def _compiled(recording: Recording) -> bool:
    ops = () if recording.window is None else recording.window.ops
    return any("ompiled" in op.name or op.name.startswith("triton_") for op in ops)


def _memory(recording: Recording, summary: Summary, share: float) -> Made:
    window = recording.window
    if window is None:
        return
    optimizer = window.timeline["optimizer"]
    work = sum(window.timeline[kind] for kind in ("matrix", "memory", "optimizer")) or 1.0
    of_step = sum(summary.shares.get(cause, 0.0) for cause in ("compute", "memory"))
    fused = any("fused" in op.name for op in window.ops if op.kind == "optimizer")
    if optimizer and not fused:
        yield _estimated(
            "the fused optimiser: fused=True",
            "one pass over weights, gradients and moments in place of a pass an operation",
            of_step * optimizer / work,
            _FUSED_OPTIMIZER,
        )
    if not _compiled(recording):
        yield _estimated(
            "torch.compile the model, or fused layers",
            "operations that follow each other then read and write memory once",
            of_step * window.timeline["memory"] / work,
            _HALF,
        )
    if prevailing(window.ops) == "float32":
        yield _estimated(
            "bfloat16: torch.autocast, or bfloat16 weights with float32 masters",
            "half the bytes of every activation",
            share,
            _HALF,
        )


def _compute(recording: Recording, summary: Summary, share: float) -> Made:
    window, peaks = recording.window, recording.peaks
    if window is not None and prevailing(window.ops) == "float32":
        known = peaks is not None and peaks.operations.get("bfloat16") and peaks.operations.get("float32")
        taken = 1 - peaks.operations["float32"] / peaks.operations["bfloat16"] if known and peaks else None
        yield Change(
            "bfloat16: torch.autocast, or bfloat16 weights with float32 masters",
            "matrix units multiply half types faster",
            None if taken is None else _gain(share, max(taken, 0.0)),
            "computed",
        )
    if summary.mfu is not None and summary.hfu is not None and summary.hfu > 1.05 * summary.mfu:
        yield _estimated(
            "keep activations where memory allows, in place of computing them again",
            f"{1 - summary.mfu / summary.hfu:.0%} of the operations are made a second time",
            share,
            1 - summary.mfu / summary.hfu,
        )
    if window is not None and window.device == "cpu":
        convolutions = sum(op.seconds for op in window.ops if "convolution" in op.name)
        if convolutions:
            yield _estimated(
                "memory_format=torch.channels_last",
                "convolutions need not change the layout",
                share * convolutions / max(window.timeline["matrix"], 1e-12),
                0.2,
            )
    yield Change(
        "encode visible tokens only, or fewer and larger patches",
        "the arithmetic units are busy: only fewer operations, or more devices, take less time",
        None,
        "computed",
    )


def _communication(recording: Recording, summary: Summary, share: float) -> Made:
    yield _estimated(
        "accumulate gradients over two batches, with no_sync() for the first",
        "gradients are exchanged half as often",
        share,
        _HALF,
    )
    yield _estimated(
        "exchange gradients in bfloat16 (bf16_compress_hook)", "half as many bytes are sent", share, _HALF
    )


def _throttled(recording: Recording, summary: Summary, share: float) -> Made:
    quota = mean(recording.samples.host, "throttled") or 0.0
    slowed = {
        name for gpu in recording.samples.gpus for name, of in gpu.throttle_reasons.items() if of > 0.01
    }
    if quota >= share - 0.01:
        what, why = "a larger CPU quota (cpu.max, --cpus)", f"it stopped the program {quota:.0%} of the time"
    elif slowed:
        what, why = (
            "better cooling, or a higher power limit",
            f"the GPU was slowed by {', '.join(sorted(slowed))}",
        )
    else:
        what, why = "a machine of its own", "other programs take processors that this one waits for"
    yield Change(what, why, _gain(share, 1.0), "computed")


def _paused(recording: Recording, summary: Summary, share: float) -> Made:
    steps = recording.steps[0]
    usual = statistics.median(steps.seconds)
    long = sum(seconds > PAUSE * usual for seconds in steps.seconds)
    yield Change(
        "validate and write checkpoints less often, or in the background",
        f"{long} of {len(steps.seconds)} steps took more than {PAUSE:g} times the usual",
        _gain(share, 1.0),
        "computed",
    )


_OF: dict[str, Callable[[Recording, Summary, float], Made]] = {
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
