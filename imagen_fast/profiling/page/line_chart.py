"""Quantities over time, as SVG that keeps its text size whatever the width of the page.

Places are percentages; only the curves lie in a nested picture of 1000 x 100 that is stretched. page.js zooms
by that picture's `viewBox`, and reads the values under the pointer from the profile that the page carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from imagen_fast.profiling import numbers
from imagen_fast.profiling.page.html import Html, join, tag
from imagen_fast.profiling.thinning import Course, course

# More would not be seen at the width that a chart has.
MOST_POINTS = {"small": 240, "wide": 480}
ids = count()


@dataclass
class Line:
    """Args:
    source: where the page's JSON holds the values, as in `samples.host.cpu`.
    colour: a class of page.css.
    filled: as an area from zero.
    """

    title: str
    values: Sequence[float | None]
    source: str
    colour: str = "plain"
    filled: bool = False


def line_chart(
    title: str,
    description: str,
    time: Sequence[float],
    time_source: str,
    lines: list[Line],
    unit: str,
    span: float,
    size: str = "small",
    top: float | None = None,
    limit: float | None = None,
) -> Html:
    """A chart over 0 to `span` seconds; of many samples, the mean of each run within its lowest and highest.

    Args:
        size: `small` or `wide`.
        top: where the axis ends; values beyond are cut off, and whoever passes it says so beside the chart.
        limit: of the quantity, drawn as a line if it is near.
    """
    courses = [course(time, line.values, MOST_POINTS[size]) for line in lines]
    low, high = _extent(courses, unit, limit)
    high = top or high
    y_ticks = numbers.ticks(low, high, 3 if size == "small" else 5)
    x_ticks = numbers.time_ticks(span, 5 if size == "small" else 8)
    place = _Places(span, low, high)
    within = limit is not None and limit <= high
    return tag(
        "div",
        tag(
            "svg",
            tag("title", title, id=f"t{(own := next(ids))}"),
            tag("desc", description, id=f"d{own}"),
            tag("g", *(_y_tick(place.percent_up(at), numbers.tick(at, unit)) for at in y_ticks)),
            tag("g", *(_x_tick(100 * at / span, label) for at, label in x_ticks), class_="x-ticks"),
            tag(
                "svg",
                *(part for line, of in zip(lines, courses, strict=True) for part in _curve(line, of, place)),
                tag("path", d=f"M0 {place.up(limit)}H1000", class_="limit") if within and limit else None,
                viewBox="0 0 1000 100",
                preserveAspectRatio="none",
                width="100%",
                height="100%",
                class_="curves",
            ),
            role="img",
            aria_labelledby=f"t{own} d{own}",
        ),
        class_=f"chart over-time {size}",
        data_time=time_source,
        data_unit=unit,
        data_span=f"{span:.7g}",
        data_low=f"{low:.7g}",
        data_high=f"{high:.7g}",
    )


class _Places:
    def __init__(self, span: float, low: float, high: float) -> None:
        self.span, self.low, self.high = span, low, high

    def along(self, time: np.ndarray) -> np.ndarray:
        return 1000 * time / self.span

    def up(self, value):
        """From the top; what lies beyond the axis, just outside the picture."""
        return np.clip(100 * (self.high - value) / (self.high - self.low), -2, 102)

    def percent_up(self, value: float) -> float:
        return float(self.up(value))


def _extent(courses: list[Course], unit: str, limit: float | None) -> tuple[float, float]:
    """From zero, but where zero means nothing: clocks and temperatures."""
    known = [value for of in courses for value in (of.low, of.high)]
    values = np.concatenate(known) if known else np.zeros(0)
    values = values[np.isfinite(values)]
    if unit == "share":
        return 0.0, 1.0
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if unit in ("Hz", "°C"):
        around = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
        return low - around, high + around
    if limit is not None and high > limit / 2:
        high = max(high, limit)
    return min(0.0, low), 1.06 * high if high > 0 else 1.0


def _curve(line: Line, of: Course, place: _Places) -> list[Html]:
    parts = []
    if of.thinned:
        parts.append(tag("path", d=_band(of, place), class_=f"band {line.colour}"))
    kind = "area" if line.filled else "line"
    parts.append(
        tag(
            "path",
            d=_path(of, place, line.filled),
            class_=f"{kind} {line.colour}",
            data_source=line.source,
            data_title=line.title,
        )
    )
    return parts


def _runs(of: Course) -> list[slice]:
    """The stretches without a gap."""
    known = np.isfinite(of.mean)
    edges = np.flatnonzero(np.diff(known, prepend=False, append=False))
    return [slice(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _path(of: Course, place: _Places, filled: bool) -> str:
    text = ""
    for run in _runs(of):
        points = _points(place.along(of.time[run]), place.up(of.mean[run]))
        if filled:
            first, last = (f"{place.along(of.time[at]):.1f}" for at in (run.start, run.stop - 1))
            text += f"M{first} 100L{points}L{last} 100Z"
        else:
            # A reading between two gaps is a point: a line of no length, with round ends.
            text += f"M{points}" + ("h0" if run.stop - run.start == 1 else "")
    return text


def _band(of: Course, place: _Places) -> str:
    text = ""
    for run in _runs(of):
        there = place.along(of.time[run])
        upper, lower = (
            _points(there, place.up(of.high[run])),
            _points(there[::-1], place.up(of.low[run])[::-1]),
        )
        text += f"M{upper}L{lower}Z"
    return text


def _points(along: np.ndarray, up: np.ndarray) -> str:
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in zip(along, up, strict=True))


def _y_tick(up: float, label: str) -> Html:
    return join(
        tag("line", x1="0", x2="100%", y1=f"{up:.1f}%", y2=f"{up:.1f}%", class_="grid"),
        tag("text", label, x="-8", y=f"{up:.1f}%", dy="0.32em", class_="y-tick"),
    )


def _x_tick(along: float, label: str) -> Html:
    return tag("text", label, x=f"{along:.2f}%", y="100%", dy="1.4em", class_="x-tick")
