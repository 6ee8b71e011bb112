"""A record in the terminal, and what a suite has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.record import Record
from imagen_fast.benchmarks.report import (
    NOT_MEASURED,
    machine_line,
    milliseconds,
    peak_memory,
    share_of_roofline,
    versus,
)
from imagen_fast.benchmarks.suites import SUITES


def show(record: Record, console: Console) -> None:
    """Every implementation with its time, ours beside each peer, who was not correct and who was absent."""
    console.print(_times(record))
    if record["ratios"]:
        console.print(_ratios(record))
    for result in record["results"]:
        if not result["correct"]:
            name = escape(f"{result['case']}, {result['implementation']}")
            console.print(f"[red]not correct: {name}[/]: {escape(str(result['evidence']))}", highlight=False)
        if result["refused"]:
            name = f"{result['case']}, {result['implementation']}"
            console.print(escape(f"refused: {name}: {result['refused']}"), highlight=False)
    for absence in record["absent"]:
        console.print(escape(_absent(absence)), highlight=False)
    console.print(escape(machine_line(record)), highlight=False)


def contents(suite: str, contests: Sequence[Contest], console: Console) -> None:
    """The contests of a suite, who takes part in any, and who is absent from one with what brings it.

    Whether a peer that is here refuses a case is only heard when the contest is held.
    """
    console.print(f"[bold]{suite}[/]: {SUITES[suite].what}", highlight=False)
    for contest in contests:
        console.print(escape(f"  {contest.name}"), highlight=False)
    present = dict.fromkeys(c.implementation for contest in contests for c in contest.contenders())
    console.print(escape(f"  present: {'; '.join(present)}"), highlight=False)
    for absence in dict.fromkeys(absence for contest in contests for absence in contest.absent):
        console.print(escape(f"  {_absent(asdict(absence))}"), highlight=False)


def _absent(absence: dict[str, str]) -> str:
    return f"absent: {absence['peer']}, {absence['why']}; {absence['install']}"


def _times(record: Record) -> Table:
    table = Table(title=record["suite"] + (", quick" if record["quick"] else ""), box=box.SIMPLE)
    table.add_column("case")
    table.add_column("implementation")
    for heading in ("median, ms", "spread (IQR), ms", "rounds", "of roofline", "peak memory"):
        table.add_column(heading, justify="right")
    for result in record["results"]:
        name = escape(result["implementation"])
        table.add_row(
            escape(result["case"]),
            f"[bold]{name}[/]" if name == OURS else name,
            milliseconds(result["median"]) if result["correct"] else "[red]not correct[/]",
            milliseconds(result["spread"]),
            str(result["rounds"]),
            share_of_roofline(result) or "not known",
            peak_memory(result) or NOT_MEASURED,
        )
    return table


def _ratios(record: Record) -> Table:
    peers = versus(record["ratios"])
    table = Table(title="a peer's time over ours", box=box.SIMPLE)
    table.add_column("case")
    for peer in peers:
        table.add_column(escape(peer), justify="right")
    found = {(ratio["case"], ratio["versus"]): f"{ratio['ratio']:.2f}x" for ratio in record["ratios"]}
    for result in record["results"]:
        if result["implementation"] == OURS:
            case = result["case"]
            table.add_row(escape(case), *(found.get((case, peer), NOT_MEASURED) for peer in peers))
    return table
