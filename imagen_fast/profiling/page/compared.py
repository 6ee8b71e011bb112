"""Two profiles beside each other, as a page."""

from __future__ import annotations

import shlex
from pathlib import Path

from imagen_fast.profiling.diff import Diff, Difference, change, groups, headline, shown, within
from imagen_fast.profiling.findings import Verdict
from imagen_fast.profiling.page.document import document
from imagen_fast.profiling.page.html import Html, tag
from imagen_fast.profiling.words import certainty, sentence

# The colours of causes that say good and bad elsewhere on a page, too.
COLOURS = {"faster": "compute", "slower": "throttled", "same": "paused", "unclear": "unknown"}


def write_diff(diff: Diff, path: Path) -> None:
    """One self-contained HTML page."""
    before, after = map(shlex.join, diff.commands)
    sections = [
        tag(
            "section",
            tag("h2", "Step time"),
            tag("p", headline(diff), class_="verdict"),
            class_=f"hero cause-{COLOURS[diff.step.outcome]}",
        ),
        tag(
            "section",
            tag("h2", "Verdicts"),
            *(_verdict(*one) for one in zip(("Before", "After"), diff.verdicts, strict=True)),
        ),
        *(_changed(name, differences) for name, differences in groups(diff).items()),
        _machines(diff.machines),
    ]
    document("Profiles compared", before if before == after else f"{before} → {after}", [], sections, path)


def _verdict(which: str, verdict: Verdict) -> Html:
    evidence = tag("ul", *(tag("li", one) for one in verdict.evidence))
    said = tag("p", sentence(verdict), f" Confidence: {certainty(verdict.confidence)}.")
    return tag("div", tag("h3", which), said, evidence)


def _changed(name: str, differences: list[Difference]) -> Html:
    rows = []
    for one in differences:
        both = (shown(value, one.unit) for value in (one.before, one.after))
        rows.append(
            tag(
                "tr",
                tag("th", one.name, scope="row"),
                *(tag("td", cell) for cell in (*both, change(one), within(one))),
            )
        )
    return _table(f"{name.capitalize()} that changed", (name, "before", "after", "change", "interval"), rows)


def _machines(machines: list[tuple[str, str, str]]) -> Html:
    if not machines:
        return tag("section", tag("h2", "Machines"), tag("p", "No fact about the machines differs."))
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", was), tag("td", now)) for name, was, now in machines
    ]
    return _table("The machines differ", ("fact", "before", "after"), rows)


def _table(title: str, heads: tuple[str, ...], rows: list[Html]) -> Html:
    head = tag("thead", tag("tr", *(tag("th", one, scope="col") for one in heads)))
    table = tag("table", head, tag("tbody", *rows))
    return tag(
        "section",
        tag("h2", title),
        tag("div", table, class_="scrolls", tabindex=0, role="region", aria_label=title),
    )
