"""Markdown from a record, for the README."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.record import Record
from imagen_fast.benchmarks.roofline import describe

NOT_MEASURED = "not measured"


def markdown(record: Record) -> str:
    """A table a subject, a row a case of ours: its time, then every peer's with the ratio; the machine.

    The subject of a case is the first word of its name: other subjects have other peers.
    """
    ours = [result for result in record["results"] if result["implementation"] == OURS]
    subjects = list(dict.fromkeys(_subject(result["case"]) for result in ours))
    tables = [
        "\n".join(_table(record, [result for result in ours if _subject(result["case"]) == subject]))
        for subject in subjects
    ]
    absent = [f"Absent: {a['peer']} ({a['why']})." for a in record.get("absent", ())]
    return "\n\n".join([*tables, "\n".join([machine_line(record), *absent])])


def links(pictures: dict[str, Path], base: Path) -> str:
    """Markdown that shows pictures, by their names, in a file in the folder `base`."""
    return "\n\n".join(
        f"![{name}]({Path(os.path.relpath(path, base)).as_posix()})" for name, path in pictures.items()
    )


def _subject(case: str) -> str:
    return case.split()[0]


def _table(record: Record, results: list[Any]) -> list[str]:
    subject = _subject(results[0]["case"])
    peers = versus(ratio for ratio in record["ratios"] if _subject(ratio["case"]) == subject)
    # Records from before there was one have no roofline.
    columns = {"of roofline": share_of_roofline, "peak memory": peak_memory}
    columns = {head: tell for head, tell in columns.items() if any(tell(result) for result in results)}
    heads = ["case", "ours, ms [spread]", *columns, *(f"{peer}, ms (ratio)" for peer in peers)]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for result in results:
        own = f"{milliseconds(result['median'])} [{milliseconds(result['spread'])}]"
        own = own if result["median"] is not None else NOT_MEASURED
        told = (tell(result) or NOT_MEASURED for tell in columns.values())
        beside = (_beside(record, result["case"], peer) for peer in peers)
        rows.append([result["case"], own, *told, *beside])
    return ["| " + " | ".join(row) + " |" for row in rows]


def versus(ratios: Iterable[dict[str, Any]]) -> list[str]:
    """The peers that any of ours is compared with, in the record's order."""
    return list(dict.fromkeys(ratio["versus"] for ratio in ratios))


def milliseconds(seconds: float | None) -> str:
    """Three digits or more, since a record holds microseconds as well as seconds."""
    if seconds is None:
        return NOT_MEASURED
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share_of_roofline(result: dict[str, Any]) -> str | None:
    """With what bounds it, as in `43% matrix`; None where it is not known."""
    percent = result.get("percent_of_roofline")
    if percent is None:
        return "over 100%: refused" if result.get("refused") else None
    return f"{percent:.0f}% {result['bound']}" if percent >= 10 else f"{percent:.2g}% {result['bound']}"


def peak_memory(result: dict[str, Any]) -> str | None:
    """Of a call alone, where the check has measured that; else of all that lies in its process."""
    peak = result.get("evidence", {}).get("peak_bytes_of_a_call", result.get("peak_bytes"))
    return None if peak is None else f"{peak / 2**20:,.0f} MiB"


def machine_line(record: Record) -> str:
    roofline = record["machine"].get("roofline")
    line = f"Medians [interquartile range]; ratio: the peer's time over ours. {machine_facts(record)}."
    return f"{line} {describe(roofline)}." if roofline else line


def machine_facts(record: Record) -> str:
    """Where, with what and when it was measured."""
    machine = record["machine"]
    versions = machine.get("versions") or {}
    threads = f"{machine.get('threads')} threads on {machine.get('cores')} cores"
    parts = [
        machine.get("gpu"),
        f"driver {machine['driver']}" if machine.get("driver") else None,
        f"{machine.get('processor') or 'unknown processor'}, {threads}",
        *(f"{name} {versions[name]}" for name in ("torch", "triton", "transformers") if versions.get(name)),
        f"commit {machine['commit'][:12]}" if machine.get("commit") else None,
        (machine.get("date") or "")[:10] or None,
        "each in a process of its own" if _apart(record) else None,
        "quick run" if record.get("quick") else None,
    ]
    return "; ".join(part for part in parts if part)


def _apart(record: Record) -> bool:
    return bool(record["results"]) and all(result.get("apart") for result in record["results"])


def _beside(record: Record, case: str, peer: str) -> str:
    for ratio in record["ratios"]:
        if (ratio["case"], ratio["versus"]) == (case, peer):
            return f"{milliseconds(ratio['peer_median'])} ({ratio['ratio']:.2f}×)"
    return NOT_MEASURED
