"""What was run, where, with which versions; what could not be recorded; the profile itself."""

from __future__ import annotations

import base64
import json
import math
import shlex
from typing import Any

from imagen_fast.profiling import numbers
from imagen_fast.profiling.page.html import Html, tag
from imagen_fast.profiling.quantities import GPU, HOST
from imagen_fast.profiling.recording import Recording
from imagen_fast.profiling.words import fact

# Digits that no measurement here exceeds; they keep the page small.
DIGITS = 7


def facts_section(recording: Recording) -> Html:
    code = "" if recording.exit_code is None else str(recording.exit_code)
    run = {
        "command": shlex.join(recording.command),
        "started": recording.started,
        "took": numbers.text(recording.seconds, "seconds"),
        "exit code": code or "none: it was no process of its own, or runs on",
        "sampled every": numbers.text(recording.samples.interval, "seconds"),
    }
    gpus = {f"GPU {gpu.index}": {"name": gpu.name, **gpu.facts} for gpu in recording.samples.gpus}
    return tag(
        "section",
        tag("h2", "Run and machine", id="facts"),
        _listed(run | recording.machine | gpus),
        aria_labelledby="facts",
    )


def _listed(facts: dict[str, Any]) -> Html:
    rows = []
    for name, value in facts.items():
        rows += [tag("dt", name.replace("_", " ")), tag("dd", fact(name, value))]
    return tag("dl", *rows, class_="facts")


def absent_section(recording: Recording) -> Html:
    """Everything that is not here, and why: nobody should take a missing chart for a quiet machine."""
    samples = recording.samples
    rows = [(name.replace("_", " "), why) for name, why in recording.absent.items()]
    rows += [(HOST[name].title if name in HOST else name, why) for name, why in samples.absent.items()]
    for gpu in samples.gpus:
        # The same reason on every GPU is one line.
        if gpu.index and gpu.absent == samples.gpus[0].absent:
            continue
        which = f"GPU {gpu.index}: " if len(samples.gpus) > 1 else "GPU: "
        rows += [
            (which + (GPU[name].title if name in GPU else name), why) for name, why in gpu.absent.items()
        ]
    listed = tag(
        "dl", *(part for name, why in rows for part in (tag("dt", name), tag("dd", why))), class_="facts"
    )
    return tag(
        "section",
        tag("h2", "What was not recorded", id="absent"),
        listed if rows else tag("p", "Everything that is known how to record was."),
        aria_labelledby="absent",
    )


def download_section(kept: dict[str, Any], many: int) -> Html:
    """Args:
    many: how many samples or steps of the recording stand for one here.
    """
    text = json.dumps(_rounded(kept), separators=(",", ":"), allow_nan=False)
    address = "data:application/json;base64," + base64.b64encode(text.encode()).decode()
    link = tag("a", "profile.json", href=address, download="profile.json", id="profile")
    told = (
        f" Numbers have {DIGITS} digits."
        if many == 1
        else f" The recording is too long to lie in this page: here one sample is the mean of {many}, "
        f"and one step of every {many} is kept. The file beside this page has all of it."
    )
    return tag(
        "section",
        tag("h2", "The profile itself", id="download"),
        tag("p", "This page carries what it was made from: ", link, ".", told),
        aria_labelledby="download",
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        # What is not finite has no place in JSON.
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
