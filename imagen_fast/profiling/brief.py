"""What a profile found, in a few lines of a terminal."""

from __future__ import annotations

from pathlib import Path

from imagen_fast.profiling.findings import Summary, Verdict
from imagen_fast.profiling.numbers import text
from imagen_fast.profiling.words import certainty, gain, sentence


def brief(summary: Summary, verdict: Verdict, record: Path) -> str:
    """The figures, the verdict with its evidence, what to try, and where everything lies."""
    figures = []
    if summary.images_per_second is not None:
        figures.append(text(summary.images_per_second, "images/s"))
    if summary.step_seconds is not None:
        figures.append(f"{text(summary.step_seconds, 'seconds')} a step")
    lines = [f"profile: {sentence(verdict)} Confidence {certainty(verdict.confidence)}."]
    if figures:
        lines.append(f"  {', '.join(figures)}")
    lines += [f"  {said}" for said in verdict.evidence]
    lines += [f"  try: {change.what} ({gain(change)})" for change in verdict.changes]
    lines.append(f"the page, the picture and the record: {record.with_suffix('')}.html, .png, .json")
    return "\n".join(lines)
