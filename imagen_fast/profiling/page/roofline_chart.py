"""The roofline picture: every operation by its operations a byte and a second, under the device's roofs."""

from __future__ import annotations

import math
from itertools import count

from imagen_fast.profiling import numbers
from imagen_fast.profiling.page.html import Html, join, tag
from imagen_fast.profiling.recording import Peaks, Window
from imagen_fast.profiling.roofline import KINDS, placed, reached, short_name
from imagen_fast.profiling.summary import prevailing

# Pixels that labels are laid out for; the picture itself is as wide as the page.
WIDE, NARROW, HEIGHT = 860, 250, 400
LETTER, LINE = 6.4, 15
SMALLEST, LARGEST = 3.0, 22.0
ids = count()


def roofline_chart(window: Window, peaks: Peaks | None) -> Html:
    """Empty where no operation's work is known."""
    points = placed(window.ops)
    if not points:
        return Html("")
    bandwidth = peaks.bandwidth if peaks else None
    used = {op.dtype for op, _, _ in points}
    arithmetic = {name: peak for name, peak in (peaks.operations if peaks else {}).items() if name in used}
    rates = [rate for _, _, rate in points] + list(arithmetic.values())
    # As far as the ridges, where the roofs meet.
    ridges = [peak / bandwidth for peak in arithmetic.values()] if bandwidth else []
    x = _Log([intensity for _, intensity, _ in points] + ridges)
    y = _Log(rates)
    longest = points[0][0].seconds
    radii = [max(SMALLEST, LARGEST * math.sqrt(op.seconds / longest)) for op, _, _ in points]
    spots = [(x.share(intensity), 1 - y.share(rate)) for _, intensity, rate in points]
    dots = []
    # The longest first, so that smaller ones lie on top.
    for (op, intensity, rate), (left, top), radius in zip(points, spots, radii, strict=True):
        roof = reached(op, peaks)
        impossible = roof is not None and roof.share > 1
        told = (
            f"{op.name}: {numbers.text(rate, 'operations/s')}, {numbers.three(intensity)} operations a byte, "
            f"{numbers.text(op.seconds / window.steps, 'seconds')} a step"
            f"{'; refused, since it lies above its roof' if impossible else ''}"
        )
        dots.append(
            tag(
                "circle",
                cx=f"{100 * left:.2f}%",
                cy=f"{100 * top:.2f}%",
                r=f"{radius:.1f}",
                class_=f"dot kind-{op.kind}" + (" impossible" if impossible else ""),
                data_told=told,
            )
        )
    names = [short_name(op.name) for op, _, _ in points]
    own = next(ids)
    return tag(
        "div",
        tag(
            "svg",
            tag("title", "Roofline of the operations", id=f"r{own}"),
            tag("desc", _described(points[0][0].name, len(points), peaks), id=f"rd{own}"),
            *(_x_tick(x, at) for at in x.ticks()),
            *(_y_tick(y, at) for at in y.ticks()),
            *_roofs(x, y, arithmetic, bandwidth, peaks, prevailing(window.ops)),
            tag("g", *dots),
            tag("g", *_labels(names, spots, radii, WIDE, 9), class_="labels wide-only"),
            tag("g", *_labels(names, spots, radii, NARROW, 3), class_="labels narrow-only"),
            role="img",
            aria_labelledby=f"r{own} rd{own}",
        ),
        tag("p", "operations per byte", class_="axis-title"),
        class_="chart roofline",
    )


def _described(longest: str, many: int, peaks: Peaks | None) -> str:
    roofs = (
        "with the roofs of the device" if peaks and peaks.bandwidth else "without a roof: the peak is unknown"
    )
    return f"{many} operations, {roofs}. {longest} takes the longest. The table below has every figure."


class _Log:
    """A logarithmic axis somewhat beyond the values."""

    def __init__(self, values: list[float]) -> None:
        self.first, self.last = math.log10(min(values)) - 0.4, math.log10(max(values)) + 0.4

    def share(self, value: float) -> float:
        return (math.log10(value) - self.first) / (self.last - self.first)

    def ticks(self) -> list[float]:
        """Powers of ten; over few of them, twice and five times those as well."""
        reach = self.last - self.first
        every = max(1, round(reach / 7))
        powers = range(math.floor(self.first), math.floor(self.last) + 1, every)
        found = [times * 10.0**power for power in powers for times in ((1, 2, 5) if reach < 2.5 else (1,))]
        return [at for at in found if self.first <= math.log10(at) <= self.last]


def _x_tick(x: _Log, at: float) -> Html:
    left = f"{100 * x.share(at):.2f}%"
    label = numbers.tick(at, "")
    return join(
        tag("line", x1=left, x2=left, y1="0", y2="100%", class_="grid"),
        tag("text", label, x=left, y="100%", dy="1.4em", class_="x-tick"),
    )


def _y_tick(y: _Log, at: float) -> Html:
    top = f"{100 * (1 - y.share(at)):.2f}%"
    return join(
        tag("line", x1="0", x2="100%", y1=top, y2=top, class_="grid"),
        tag("text", numbers.tick(at, "operations/s"), x="-8", y=top, dy="0.32em", class_="y-tick"),
    )


def _roofs(
    x: _Log,
    y: _Log,
    arithmetic: dict[str, float],
    bandwidth: float | None,
    peaks: Peaks | None,
    chief: str | None,
) -> list[Html]:
    """Lines with their names. No operation lies above its roof, so the names do."""
    if not arithmetic and not bandwidth:
        device = peaks.device if peaks else "this device"
        told = f"no roof: the peak of {device} is unknown"
        return [tag("text", told, x="100%", y="16", text_anchor="end", class_="roof-label")]
    parts = []
    for name, peak in arithmetic.items():
        ridge, top = x.share(peak / bandwidth) if bandwidth else 0.0, 1 - y.share(peak)
        parts.append(_roof(ridge, top, 1, top, "roof" if name == chief else "roof faint"))
        only = "" if name == chief else " wide-only"
        beside = (
            {"text_anchor": "end", "dx": "-10", "dy": "0.32em"} if bandwidth else {"dx": "6", "dy": "-0.5em"}
        )
        label = f"{name} {numbers.tick(peak, 'operations/s')}"
        parts.append(_roof_label(label, ridge, top, f"roof-label{only}", **beside))
    if bandwidth:
        # From where the slope enters the picture to where it meets the highest level.
        highest = max(arithmetic.values(), default=10.0**y.last)
        first = max(x.first, y.first - math.log10(bandwidth))
        last = min(x.last, math.log10(highest / bandwidth))
        if first < last:
            (x1, y1), (x2, y2), (x3, y3) = (
                (x.share(10**at), 1 - y.share(bandwidth * 10**at)) for at in (first, last, (first + last) / 2)
            )
            parts.append(_roof(x1, y1, x2, y2))
            label = f"memory {numbers.tick(bandwidth, 'bytes/s')}"
            parts.append(_roof_label(label, x3, y3, "roof-label", text_anchor="end", dx="-14"))
    return parts


def _roof_label(label: str, left: float, top: float, class_: str, **beside: str) -> Html:
    return tag("text", label, x=f"{100 * left:.2f}%", y=f"{100 * top:.2f}%", class_=class_, **beside)


def _roof(x1: float, y1: float, x2: float, y2: float, class_: str = "roof") -> Html:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return tag("line", class_=class_, **{name: f"{100 * at:.2f}%" for name, at in ends.items()})


def _labels(
    names: list[str], spots: list[tuple[float, float]], radii: list[float], width: float, most: int
) -> list[Html]:
    """Names beside the longest operations, as far as there is room at this width."""
    taken = [
        (width * left - radius, HEIGHT * top - radius, width * left + radius, HEIGHT * top + radius)
        for (left, top), radius in zip(spots, radii, strict=True)
    ]
    labels = []
    for name, (left, top), radius in list(zip(names, spots, radii, strict=True))[:most]:
        long = LETTER * len(name)
        for dx, dy, anchor in (
            (radius + 4, 4, "start"),
            (-radius - 4, 4, "end"),
            (0, -radius - 5, "middle"),
            (0, radius + 13, "middle"),
        ):
            start = width * left + dx - {"start": 0, "middle": long / 2, "end": long}[anchor]
            box = (start, HEIGHT * top + dy - LINE + 3, start + long, HEIGHT * top + dy + 3)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= HEIGHT
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                place = {"x": f"{100 * left:.2f}%", "y": f"{100 * top:.2f}%"}
                labels.append(tag("text", name, dx=f"{dx:.0f}", dy=f"{dy:.0f}", text_anchor=anchor, **place))
                break
    return labels


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def legend() -> Html:
    items = (tag("li", tag("span", class_=f"swatch kind-{kind}"), name) for kind, name in KINDS.items())
    return tag("ul", *items, class_="legend")
