"""The JSON of a run, from which every table and picture is made.

    {"suite", "quick", "machine": {..., "roofline": {...}},
     "results": [{"contest", "case", "implementation", "pass", "median", "spread", "unit": "s", "correct", ...
                  "bytes", "operations", "exponentials",
                  "roofline_seconds", "bound", "percent_of_roofline", "refused",
                  "curve": {"name", "x", "value"}}],
     "ratios": [{"case", "versus", "ratio", "peer_median"}],
     "absent": [{"peer", "why", "install"}]}

`median` and `spread` (the interquartile range) are over rounds, `samples` are the rounds in order, which
those of one `contest` share; `cpu_samples`: seconds of all threads together, none where they are not known.
`apart`: in a process of its own. `peak_bytes`: see `measure.Sample`. What is null was not measured. `ratio`
is the peer's median over ours: above 1, ours is faster.

`bytes`, `operations` and `exponentials` are the least work of the pass, the same for all peers of a case: see
`work.py`; `products_in` is the type of its products. `roofline_seconds` is the least time for it on this
machine, `bound` what sets that (`memory`, `matrix` or `exp`), both null where the operations are not known:
see `roofline.py`. `percent_of_roofline` is that time over the median; where it would be above 100 it is null,
and `refused` says why.
`curve`, where a result is a point of one: which, what grows, and how large it is here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagen_fast.benchmarks.contest import Result
from imagen_fast.benchmarks.measure import Timing
from imagen_fast.benchmarks.peers import Absence
from imagen_fast.benchmarks.roofline import Roofline, nearness
from imagen_fast.errors import InvalidInput

Record = dict[str, Any]


def make_record(
    suite: str,
    quick: bool,
    machine: dict[str, Any],
    contests: Sequence[Sequence[Result]],
    absent: Sequence[Absence],
) -> Record:
    """The record of a suite from the results of its contests; absences that repeat are kept once.

    A peer that has refused a case is absent from it, and no result.
    """
    refused = [result.absence for results in contests for result in results if result.absence]
    contests = [[result for result in results if not result.absence] for results in contests]
    return {
        "suite": suite,
        "quick": quick,
        "machine": machine,
        "results": [_result(result, machine.get("roofline")) for results in contests for result in results],
        "ratios": [ratio for results in contests for ratio in ratios(results)],
        "absent": [asdict(absence) for absence in dict.fromkeys([*absent, *refused])],
    }


def ratios(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each of ours beside each peer of the same contest, where both have a time."""
    return [
        {
            "case": ours.case,
            "versus": peer.implementation,
            "ratio": peer.timing.median / ours.timing.median,
            "peer_median": peer.timing.median,
        }
        for ours in results
        for peer in results
        if ours.ours and not peer.ours and ours.timing is not None and peer.timing is not None
    ]


def _result(result: Result, roofline: Roofline | None) -> dict[str, Any]:
    timing = result.timing
    median = timing and timing.median
    return {
        "case": result.case,
        "implementation": result.implementation,
        "pass": result.measured,
        "median": median,
        "spread": timing and timing.spread,
        "unit": "s",
        "correct": result.verdict.correct,
        "rounds": len(timing.samples) if timing else 0,
        "samples": [sample.seconds for sample in timing.samples] if timing else [],
        "cpu_samples": _cpu_samples(timing) if timing else [],
        "cpu_median": timing and timing.cpu_median,
        "peak_bytes": timing and timing.peak_bytes,
        "evidence": _writable(result.verdict.evidence),
        **dict.fromkeys(("bytes", "operations", "exponentials")),
        **result.facts,
        **nearness(result.facts, median, result.cold, roofline),
    }


def _cpu_samples(timing: Timing) -> list[float]:
    # The clock ticks in nanoseconds: what a subtraction leaves beyond them is no figure.
    return [round(sample.cpu_seconds, 9) for sample in timing.samples if sample.cpu_seconds is not None]


def _writable(value: Any) -> Any:
    """JSON has no NaN and no infinity, and a failed check may have found either: they become words."""
    if isinstance(value, dict):
        return {name: _writable(entry) for name, entry in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check_writable(path: Path) -> None:
    """Before minutes of measuring, not after.

    Raises:
        InvalidInput: the record could not be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"the JSON's folder {path.parent} cannot be made: {error.strerror}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"the JSON must be a file in a folder that can be written, not {path}")


def write(record: Record, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    part.replace(path)


def read(path: Path) -> Record:
    """A record that `write` wrote, or that a JSON of pytest-benchmark holds beside its own figures.

    Raises:
        InvalidInput: there is none, or it is something else.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as a record of a benchmark: {error}") from error
    if isinstance(record, dict):
        record = record.get("imagen_fast", record)
    if not isinstance(record, dict) or not {"machine", "results", "ratios"} <= record.keys():
        raise InvalidInput(f"{path} is no record of a benchmark: it needs machine, results and ratios")
    return record


def read_runs(path: Path) -> list[Record]:
    """A record, or those of all files `*.json` in a folder, by name.

    Raises:
        InvalidInput: as `read`, or the folder has none.
    """
    if not path.is_dir():
        return [read(path)]
    files = sorted(path.glob("*.json"))
    if not files:
        raise InvalidInput(f"the folder {path} has no record, which is a file that ends in .json")
    return [read(file) for file in files]
