"""What changed between two records, in the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imagen_fast.benchmarks.compare import WITNESSES, Comparison, Finding, Side
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.report import milliseconds

_COLOURS = {"slower": "red", "faster": "green", "unclear": "yellow", "same": "dim"}


def show(comparison: Comparison, console: Console) -> None:
    """Every case with its verdict and evidence, then who was not compared and why."""
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        console.print(f"{name}: {escape(_side(side))}", highlight=False)
    if comparison.differences:
        console.print(f"not a fair comparison: {escape('; '.join(comparison.differences))}", highlight=False)
    console.print(_table(comparison))
    counts = ", ".join(f"{number} {verdict}" for verdict, number in comparison.count.most_common())
    console.print(f"{counts or 'nothing compared'}; {_basis(comparison)}", highlight=False)
    for what, names in (
        ("a peer that changed itself, and explains nothing", comparison.changed_peers),
        ("too few rounds to compare", comparison.too_few_rounds),
        ("not correct in A", comparison.incorrect_in_a),
        ("not correct in B", comparison.incorrect_in_b),
        ("only in A", comparison.only_in_a),
        ("only in B", comparison.only_in_b),
    ):
        for name in names:
            console.print(f"{what}: {escape(name)}", highlight=False)


def _side(side: Side) -> str:
    commit = None if side.commit is None else side.commit[:12] + "+changes" * side.commit.endswith("+changes")
    least, most = side.rounds
    runs = f"{side.runs} runs of " if side.runs > 1 else ""
    facts = [
        side.file,
        f"commit {commit or 'unknown'}",
        side.date or "date unknown",
        f"load {'unknown' if side.load is None else side.load}",
        f"{runs}{least} rounds" if least == most else f"{runs}{least} to {most} rounds",
    ]
    return ", ".join(facts)


def _table(comparison: Comparison) -> Table:
    title = "" if comparison.timer == "wall" else ", processor seconds"
    table = Table(title=f"B beside A{title}", box=box.SIMPLE)
    table.add_column("case")
    for heading in ("A, ms", "B, ms", "rounds", "peers explain", "B/A beyond [98%]"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for finding in comparison.findings:
        low, high = finding.interval
        table.add_row(
            escape(
                finding.case
                if finding.implementation == OURS
                else f"{finding.case}, {finding.implementation}"
            ),
            milliseconds(finding.median_a),
            milliseconds(finding.median_b),
            "{} + {}".format(*finding.rounds),
            _explained(finding, comparison.references),
            f"{finding.ratio:.3f} [{low:.3f}, {high:.3f}]",
            f"[{_COLOURS[finding.verdict]}]{_verdict(finding, comparison)}[/]",
        )
    return table


def _explained(finding: Finding, references: int) -> str:
    if not references:
        return "nothing"
    near = len(finding.references)
    return f"{finding.explained:.3f} by {near or f'{references} of other contests'}"


def _verdict(finding: Finding, comparison: Comparison) -> str:
    if finding.verdict != "unclear":
        return finding.verdict
    runs = min(comparison.a.runs, comparison.b.runs)
    if finding.rounds_needed is not None:
        if runs == 1:
            return f"unclear; {finding.rounds_needed:,} rounds would do"
        return f"unclear; {math.ceil(runs * finding.rounds_needed / min(finding.rounds)):,} runs would do"
    if not comparison.references:
        return f"unclear; needs {WITNESSES} peers"
    return "unclear; needs a calmer machine" + ", or several runs" * (runs == 1)


def _basis(comparison: Comparison) -> str:
    within = f"same: within {comparison.threshold:.3g}"
    if comparison.references:
        shift, contest, contender = (f"{100 * value:.1f}%" for value in comparison.between)
        return (
            f"{within}; {comparison.references} unchanged peers moved by {shift}, give or take {contest} "
            f"in a contest and {contender} each"
        )
    return (
        f"{within}; without {WITNESSES} unchanged peers a slower machine looks like slower code, so that "
        "only very large changes count"
    )
