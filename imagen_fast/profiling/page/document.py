"""The page around its sections: one file that asks nothing of any network."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

from imagen_fast.profiling.colours import styles
from imagen_fast.profiling.findings import Summary, Verdict, to_dict
from imagen_fast.profiling.page import facts, opening, operations, over_time, shares
from imagen_fast.profiling.page.html import Html, tag
from imagen_fast.profiling.recording import Recording
from imagen_fast.profiling.thinning import coarser

# Numbers of samples and steps that a page carries: about 2 MB of it.
MOST_NUMBERS = 150_000
# By the headings' ids.
CONTENTS = {
    "verdict": "verdict",
    "changes": "changes",
    "figures": "figures",
    "shares": "a step",
    "steps": "steps",
    "machine": "machine",
    "operations": "operations",
    "facts": "run",
    "absent": "not recorded",
    "download": "JSON",
}
# A browser that honours this cannot fetch anything, whatever a name in the recording may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write(recording: Recording, summary: Summary, verdict: Verdict, path: Path) -> None:
    """One self-contained HTML page."""
    carried, many = coarser(recording, MOST_NUMBERS)
    sections = [
        opening.verdict_section(recording, verdict),
        opening.changes_section(verdict.changes),
        opening.figures_section(recording, summary),
        shares.shares_section(recording, summary),
        over_time.steps_section(recording),
        over_time.machine_section(recording),
        operations.operations_section(recording),
        facts.facts_section(recording),
        facts.absent_section(recording),
        facts.download_section(carried.to_dict() | to_dict(summary, verdict), many),
    ]
    when = recording.started.replace("T", ", ")
    document(
        "Profile",
        shlex.join(recording.command),
        [tag("p", when, class_="quiet"), _contents()],
        sections,
        path,
    )


def _contents() -> Html:
    links = (tag("a", name, href=f"#{of}") for of, name in CONTENTS.items())
    return tag("nav", *links, class_="contents", aria_label="contents")


def document(title: str, of: str, head: list[Html], sections: list[Html], path: Path) -> None:
    """Write the sections as a page with styles and script, under a title and a command."""
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", f"{title}: {of}"),
            tag("style", _part("page.css"), Html(styles())),
        ),
        tag(
            "body",
            tag("a", "to the verdict", href="#main", class_="skip"),
            tag("header", tag("h1", title), tag("p", tag("code", of)), *head),
            tag("main", *sections, id="main"),
            tag("div", id="tip", role="status", hidden=True),
            tag("script", _part("page.js")),
        ),
        lang="en",
    )
    # Words of a command may hold bytes that are no UTF-8.
    path.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8", errors="replace")


def _part(name: str) -> Html:
    return Html(resources.files("imagen_fast.profiling.page").joinpath(name).read_text(encoding="utf-8"))
