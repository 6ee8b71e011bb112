"""Where a step's time goes, and how fast it would be with something taken away."""

from __future__ import annotations

from imagen_fast.profiling import numbers
from imagen_fast.profiling.findings import Summary
from imagen_fast.profiling.page.html import Html, tag
from imagen_fast.profiling.recording import Ceilings, Recording
from imagen_fast.profiling.words import cause


def shares_section(recording: Recording, summary: Summary) -> Html:
    shares = {name: share for name, share in summary.shares.items() if share > 0}
    ceilings = recording.ceilings
    parts: list[Html | None] = []
    if shares:
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        parts += [
            _stacked(ordered, summary.step_seconds, _scale(ceilings, summary)),
            _legend(ordered, summary),
        ]
    else:
        why = (
            recording.absent.get("window")
            or recording.absent.get("steps")
            or "nothing that tells was recorded"
        )
        parts.append(tag("p", f"Not known: {why}.", class_="quiet"))
    parts += _ceilings(ceilings, recording.absent, _scale(ceilings, summary))
    return tag(
        "section",
        tag("h2", "Where a step's time goes", id="shares"),
        *parts,
        aria_labelledby="shares",
    )


def _scale(ceilings: Ceilings | None, summary: Summary) -> float:
    """Seconds that the whole width stands for."""
    return max(ceilings.as_is if ceilings else 0, summary.step_seconds or 0) or 1.0


def _stacked(shares: list[tuple[str, float]], seconds: float | None, scale: float) -> Html:
    told = ", ".join(f"{cause(name)} {numbers.text(share, 'share')}" for name, share in shares)
    width = (seconds or scale) / scale
    bars, start = [], 0.0
    for name, share in shares:
        left, wide = 100 * start * width, 100 * share * width
        bars.append(
            tag("rect", x=f"{left:.2f}%", width=f"{wide:.2f}%", height="100%", class_=f"cause-{name}")
        )
        if share * width >= 0.12:
            label = numbers.text(round(share, 3), "share")
            bars.append(
                tag("text", label, x=f"{left + wide / 2:.2f}%", y="50%", dy="0.34em", class_="on-bar")
            )
        start += share
    return tag(
        "svg",
        tag("title", "Shares of a step's time by cause", id="shares-title"),
        tag("desc", f"{told}.", id="shares-desc"),
        *bars,
        class_="stacked",
        role="img",
        aria_labelledby="shares-title shares-desc",
    )


def _legend(shares: list[tuple[str, float]], summary: Summary) -> Html:
    items = []
    for name, share in shares:
        seconds = f", {numbers.text(share * summary.step_seconds, 'seconds')}" if summary.step_seconds else ""
        items.append(
            tag(
                "li",
                tag("span", class_=f"swatch cause-{name}"),
                tag("strong", numbers.text(share, "share")),
                f" {cause(name)}{seconds}",
            )
        )
    return tag("ul", *items, class_="legend")


def _ceilings(ceilings: Ceilings | None, absent: dict[str, str], scale: float) -> list[Html]:
    title = tag("h3", "Measured by taking something away")
    if ceilings is None:
        return [
            title,
            tag("p", f"Not measured: {absent.get('ceilings', 'it was not asked for')}.", class_="quiet"),
        ]
    rows = [
        ("as it runs", ceilings.as_is, ""),
        ("batches that lie in memory: no input to wait for", ceilings.in_memory, "in_memory"),
        ("replayed as one CUDA graph: no launching", ceilings.graph, "graph"),
    ]
    bars = []
    for name, seconds, key in rows:
        if seconds is None:
            shown = f"not measured: {absent[key]}" if key in absent else "not measured"
        else:
            gained = f" ({ceilings.as_is / seconds:.2f}× as fast)" if key else ""
            shown = numbers.text(seconds, "seconds") + gained
        wide = f"--wide: {100 * min(1, (seconds or 0) / scale):.2f}%"
        bars.append(
            tag("li", tag("span", f"{name}: ", tag("strong", shown)), tag("i", style=wide), class_="bar")
        )
    rounds = (
        tag("p", f"Means of {ceilings.rounds} rounds, in turn.", class_="quiet")
        if ceilings.rounds
        else Html("")
    )
    return [title, tag("ul", *bars, class_="bars"), rounds]
