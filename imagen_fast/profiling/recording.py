"""What was recorded of a run, without any judgement, and how that is kept in a file.

Four kinds of evidence, none of which needs another: samples of the machine, the steps that the program's own
process noticed, a short window of every operation, and ceilings that were measured by taking something away.
What is missing is None, with its reason in `absent`: without a GPU, in a program without PyTorch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imagen_fast.errors import InvalidInput

FORMAT = "imagen-fast profile"
VERSION = 1

Series = dict[str, list[float | None]]
"""By the names of `quantities`, one value a sample; None where it could not be read then."""


@dataclass
class Gpu:
    """One GPU.

    Args:
        facts: `memory_bytes`, `power_limit` (W), `driver`, ... as NVML tells them.
        absent: quantities that cannot be read here, and why.
        throttle_reasons: NVML's names of reasons, and in how large a share of the samples each was active.
    """

    index: int
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    throttle_reasons: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


@dataclass
class Samples:
    """The machine at `time` (seconds from the start of the recording), about every `interval`."""

    interval: float
    time: list[float] = field(default_factory=list)
    host: Series = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


@dataclass
class Steps:
    """The training steps of one process, in order; seconds.

    Steps in which the profiler itself was busy (the window, the ceilings) are left out.

    Args:
        boundary: what ended a step: `optimizer` or `batch` (programs that only infer).
        end: since the start of the recording.
        seconds: from the end of the step before.
        data: of those, spent in waiting for input.
        data_cpu: processor seconds that this process spent meanwhile on preparing them: of the waiting thread
            where a DataLoader is waited for, of all threads where it is our own loader.
        images: in the batches of the step; 0 where it could not be told.
        workers: processes or threads that prepare batches beside it; None where not known.
        delayed: share of the time in which the training thread could have run, but had no processor; None
            where the system does not tell.
        every: of how many steps one is kept; more than 1 in a run so long that all would be too many.
    """

    pid: int
    rank: int = 0
    world: int = 1
    boundary: str = "optimizer"
    end: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    data: list[float] = field(default_factory=list)
    data_cpu: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    workers: int | None = None
    delayed: float | None = None
    every: int = 1


@dataclass
class Op:
    """One operation of the window, all its calls together.

    Args:
        kind: `matrix`, `memory` (everything else that computes), `copy` (between devices, types or layouts),
            `communication`, `optimizer`.
        seconds: on the device that did the work, without what it called.
        operations: that were carried out, those made again included; None where no formula is known.
        model_operations: without those made again.
        bytes: of inputs and outputs once, from the shapes; None where they are not known.
        dtype: of the chief input: `bfloat16`, ...
    """

    name: str
    kind: str
    calls: int
    seconds: float
    operations: float | None = None
    model_operations: float | None = None
    bytes: float | None = None
    dtype: str | None = None


@dataclass
class Window:
    """Every operation of a few steps, by torch.profiler.

    Args:
        device: whose time `timeline` divides: `cpu` (the training thread) or `cuda`.
        seconds: of the whole window, which the profiler itself makes longer.
        timeline: seconds by what went on: `data`, `copy`, `communication`, `matrix`, `memory`, `optimizer`,
            and `idle`, when no operation ran (Python, launching, or waiting for the device).
        launches: operations (on a GPU: kernels) in the window.
        syncs: times that the host waited for the GPU.
    """

    device: str
    steps: int
    seconds: float
    timeline: dict[str, float]
    launches: int
    syncs: int = 0
    ops: list[Op] = field(default_factory=list)


@dataclass
class Ceilings:
    """Seconds a step, means, with something taken away; None where that was not measured.

    Args:
        as_is: as the program runs, beside the others.
        in_memory: batches that lay in memory before: no input to wait for.
        graph: the step replayed as one CUDA graph: no launching.
    """

    as_is: float
    in_memory: float | None = None
    graph: float | None = None
    rounds: int = 0


@dataclass
class Peaks:
    """What the device could do at most, a second; None where that is not known.

    Args:
        source: the data sheet, or `measured here`.
        operations: by type, as in `{"bfloat16": 989e12}`.
        bandwidth: bytes of its memory.
    """

    device: str
    source: str | None = None
    operations: dict[str, float] = field(default_factory=dict)
    bandwidth: float | None = None


@dataclass
class Recording:
    """All that is known of one run.

    Args:
        started: ISO 8601, with the zone.
        seconds: from the start of the program to its end.
        exit_code: None where it runs on, or was no process of its own (`with imagen_fast.profile()`).
        absent: what could not be recorded, and why: `window`, `steps`, `ceilings`, ...
    """

    command: list[str]
    started: str
    seconds: float
    machine: dict[str, Any]
    samples: Samples
    exit_code: int | None = None
    peaks: Peaks | None = None
    steps: list[Steps] = field(default_factory=list)
    window: Window | None = None
    ceilings: Ceilings | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Recording:
        """What `to_dict` made; keys that are derived from it (the verdict, say) are passed over.

        Raises:
            InvalidInput: it is something else, or of a newer version.
        """
        if kept.get("format") != FORMAT:
            raise InvalidInput(f"this is no profile: its format is {kept.get('format')!r}, not {FORMAT!r}")
        if kept.get("version") != VERSION:
            raise InvalidInput(
                f"the profile is of version {kept.get('version')}; this program reads version {VERSION}"
            )
        try:
            taken = {name: kept[name] for name in cls.__dataclass_fields__}
            samples = dict(taken["samples"])
            taken["samples"] = Samples(**samples | {"gpus": [Gpu(**gpu) for gpu in samples["gpus"]]})
            taken["steps"] = [Steps(**steps) for steps in taken["steps"]]
            if taken["window"] is not None:
                window = dict(taken["window"])
                taken["window"] = Window(**window | {"ops": [Op(**op) for op in window["ops"]]})
            for name, kind in (("ceilings", Ceilings), ("peaks", Peaks)):
                taken[name] = None if taken[name] is None else kind(**taken[name])
            return cls(**taken)
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"the profile is not whole: {error}") from error


def read(path: Path) -> tuple[Recording, dict[str, Any]]:
    """The recording in a file, and the file's whole content.

    Raises:
        InvalidInput: it cannot be read, or is no profile.
    """
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as a profile: {error}") from error
    if not isinstance(kept, dict):
        raise InvalidInput(f"{path} is no profile: it holds no object")
    try:
        return Recording.from_dict(kept), kept
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
