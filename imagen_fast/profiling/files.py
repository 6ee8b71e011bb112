"""A profile's folder: profile.json, profile.html and profile.png."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from imagen_fast.errors import InvalidInput, MissingPackage
from imagen_fast.profiling import peaks
from imagen_fast.profiling.findings import Summary, Verdict, to_dict
from imagen_fast.profiling.recording import Peaks, Recording
from imagen_fast.profiling.summary import summarise
from imagen_fast.profiling.verdict import judge

RECORD = "profile.json"


def usual_folder() -> Path:
    """Where a profile goes that nobody named: a new folder, so that two can be compared."""
    return Path(time.strftime("profile-%Y%m%d-%H%M%S"))


def prepare(folder: Path) -> None:
    """Make the folder, before a program is run whose recording goes there.

    Raises:
        InvalidInput: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInput(f"the profile cannot be written to {folder}: {error.strerror or error}") from error


def abandon(folder: Path) -> None:
    """Nothing was recorded: a folder that is empty goes."""
    with suppress(OSError):
        folder.rmdir()


def keep(recording: Recording, folder: Path) -> tuple[Summary, Verdict]:
    """Write everything, the recording first: who interrupts the rest has it.

    Raises:
        InvalidInput: it cannot be written.
    """
    _record(recording, folder)
    recording.peaks = peaks_of(recording)
    summary, verdict = _record(recording, folder)
    try:
        _draw(recording, summary, verdict, folder / RECORD)
    except MissingPackage as missing:
        print(f"no picture: {missing}", file=sys.stderr)
    return summary, verdict


def draw_again(recording: Recording, record: Path) -> list[Path]:
    """The page and the picture of a recording that was read from `record`, concluded from anew."""
    summary = summarise(recording)
    return _draw(recording, summary, judge(recording, summary), record)


def _draw(recording: Recording, summary: Summary, verdict: Verdict, record: Path) -> list[Path]:
    """Beside the record and with its name."""
    from imagen_fast.profiling import page, picture

    paths = [record.with_suffix(".html"), record.with_suffix(".png")]
    page.write(recording, summary, verdict, paths[0])
    picture.write(recording, summary, verdict, paths[1])
    return paths


def _record(recording: Recording, folder: Path) -> tuple[Summary, Verdict]:
    summary = summarise(recording)
    verdict = judge(recording, summary)
    whole = recording.to_dict() | to_dict(summary, verdict)
    path = folder / RECORD
    new = path.with_suffix(".part")
    try:
        new.write_text(json.dumps(whole))
        new.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from error
    return summary, verdict


def peaks_of(recording: Recording) -> Peaks | None:
    """What the device of a run could do at most; of a CPU it is measured, where operations were counted."""
    if recording.samples.gpus:
        return peaks.published(recording.samples.gpus[0].name)
    if recording.window is None:
        return None
    return peaks.measured_on_cpu(recording.machine.get("threads"))
