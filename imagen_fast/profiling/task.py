"""What a program that is profiled is asked to record, and the file that each of its processes writes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imagen_fast.profiling.recording import Ceilings, Steps, Window


@dataclass(frozen=True)
class Task:
    """What a program is asked to record.

    Args:
        folder: where each of its processes writes.
        start: `time.monotonic()` at the start of the recording, which is one clock for all processes.
        window: steps of which every operation is recorded; 0: none.
        ceilings: measure steps with batches that lie in memory: a few are drawn a little earlier.
    """

    folder: Path
    start: float
    window: int
    ceilings: bool


def write_part(
    task: Task,
    steps: Steps,
    window: Window | None,
    ceilings: Ceilings | None,
    machine: dict[str, Any],
    absent: dict[str, str],
) -> None:
    """Put what this process has recorded so far in the place of what it wrote before."""
    part = {
        "steps": asdict(steps),
        "window": window and asdict(window),
        "ceilings": ceilings and asdict(ceilings),
        "machine": machine,
        "absent": absent,
    }
    path = task.folder / f"process-{os.getpid()}.json"
    new = path.with_suffix(".part")
    new.write_text(json.dumps(part))
    new.replace(path)
