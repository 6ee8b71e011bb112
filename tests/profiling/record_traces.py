"""Record bottlenecks.py's programs into `traces/`: `python record_traces.py [NAME ...]`, on a quiet machine.

Each runs for a quarter of a minute; of what is recorded a small part is kept, and the events of its window as
they came from PyTorch. On a machine with a GPU the
traces are named after it, and lie beside those of the CPU. `OUT` names another folder for them.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from bottlenecks import BOTTLENECKS, DEVICE

from imagen_fast.profiling import files
from imagen_fast.profiling.recording import Recording, Samples, Series, Steps
from imagen_fast.profiling.run import Options, run
from imagen_fast.profiling.summary import others, summarise
from imagen_fast.profiling.verdict import judge

TRACES = Path(os.environ.get("OUT") or Path(__file__).parent / "traces")
SECONDS = 15
WINDOW = 2
QUOTA = 0.3  # of a processor
DISTURBED = 0.05  # of a program's time, by others

_MOST_STEPS, _MOST_SAMPLES, _MOST_OPS = 120, 40, 16
_CGROUPS = Path("/sys/fs/cgroup")


def record(name: str, events: Path) -> Recording:
    program = [sys.executable, "-P", str(Path(__file__).with_name("bottlenecks.py")), name, str(SECONDS)]
    os.environ["EVENTS"] = str(events)
    with quota() if name == "throttled" else nullcontext():
        return run(program, Options(window=WINDOW))


@contextmanager
def quota():
    """This process, and all that it starts, in a control group that may use less than a processor."""
    first = _CGROUPS / "cpu" if (_CGROUPS / "cpu").is_dir() else _CGROUPS
    group = first / f"imagen-fast-{os.getpid()}"
    group.mkdir()
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{int(QUOTA * 100_000)} 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(int(QUOTA * 100_000)))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (first / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def small(recording: Recording) -> Recording:
    """What a verdict needs, in a file that a repository can carry: means, and fewer digits."""
    window = recording.window
    if window is not None:
        window = replace(window, ops=window.ops[:_MOST_OPS])
    return replace(
        recording,
        command=[recording.command[-2]],
        samples=_samples(recording.samples),
        steps=[_steps(steps) for steps in recording.steps],
        window=window,
    )


def _steps(steps: Steps) -> Steps:
    count = len(steps.end)
    taken = sorted(random.Random(0).sample(range(count), min(count, _MOST_STEPS)))
    kept = {
        name: [getattr(steps, name)[index] for index in taken]
        for name in ("end", "seconds", "data", "data_cpu", "images")
    }
    return replace(steps, **kept, every=steps.every * round(count / len(taken)))


def _samples(samples: Samples) -> Samples:
    group = -(-len(samples.time) // _MOST_SAMPLES)
    return replace(
        samples,
        interval=samples.interval * group,
        time=samples.time[group - 1 :: group],
        host=_means(samples.host, group),
        gpus=[replace(gpu, series=_means(gpu.series, group)) for gpu in samples.gpus],
    )


def _means(series: Series, group: int) -> Series:
    made: Series = {}
    for name, values in series.items():
        parts = [
            [value for value in values[first : first + group] if value is not None]
            for first in range(0, len(values) // group * group, group)
        ]
        made[name] = [sum(part) / len(part) if part else None for part in parts]
    return made


def rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else value


def main(names: list[str]) -> None:
    TRACES.mkdir(parents=True, exist_ok=True)
    for program, bottleneck in BOTTLENECKS.items():
        name = program.__name__
        if names and name not in names:
            continue
        events = TRACES / f"{name}-{DEVICE.type}.events.json"
        recording = small(record(name, events))
        if others(recording) > DISTURBED:
            print(f"not kept: {name}, other programs took {others(recording):.0%} of its time", flush=True)
            continue
        recording.peaks = files.peaks_of(recording)
        verdict = judge(recording, summarise(recording))
        Path(f"{events}.gz").write_bytes(gzip.compress(events.read_bytes(), mtime=0))
        events.unlink()
        kept = rounded({"bottleneck": bottleneck, **recording.to_dict()})
        path = TRACES / f"{name}-{DEVICE.type}.json"
        path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
        right = "right" if verdict.bottleneck == bottleneck else "WRONG"
        print(
            f"{right} {name}: {verdict.bottleneck} {verdict.confidence:.0%}, {path.stat().st_size} bytes",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
