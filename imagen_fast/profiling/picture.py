"""The report as one picture: the verdict, shares, steps, chief quantities and the roofline."""

from __future__ import annotations

import math
import shlex
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from imagen_fast.errors import MissingPackage
from imagen_fast.profiling import colours, numbers
from imagen_fast.profiling.findings import Summary, Verdict
from imagen_fast.profiling.quantities import GPU, HOST, Quantity
from imagen_fast.profiling.recording import Recording, Series
from imagen_fast.profiling.roofline import placed, short_name
from imagen_fast.profiling.thinning import course
from imagen_fast.profiling.words import cause, gain, sentence

INK, SECOND, LINE = "#16161a", "#55545a", "#2457b8"
# What tells most, as far as it was sampled: four of these.
CHIEF_GPU = ("utilisation", "tensor_active", "sm_active", "power", "memory")
CHIEF_HOST = ("cpu", "workers_cpu", "read", "memory")
MOST_POINTS, DPI = 600, 130


def write(recording: Recording, summary: Summary, verdict: Verdict, path: Path) -> None:
    """One PNG.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingPackage(
            "drawing needs the package matplotlib: pip install imagen-fast[train]"
        ) from error
    around = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    # Not pyplot: it would keep global state and might look for a display.
    figure = Figure(figsize=(12, 10.5), layout=around, facecolor="white")
    places = figure.subplot_mosaic(
        [["said", "said"], ["shares", "shares"], ["steps", "roof"], ["one", "two"], ["three", "four"]],
        height_ratios=[2.3, 0.75, 3.6, 1.7, 1.7],
    )
    _said(places["said"], recording, summary, verdict)
    _shares(places["shares"], summary)
    _steps(places["steps"], recording)
    _roofline(places["roof"], recording)
    chief = _chief(recording)
    for name, of in zip(("one", "two", "three", "four"), [*chief, *[None] * 4], strict=False):
        places[name].set_visible(of is not None)
        if of is not None:
            _quantity(places[name], recording, *of)
    figure.savefig(path, dpi=DPI, format="png")


def _said(axis: Any, recording: Recording, summary: Summary, verdict: Verdict) -> None:
    axis.axis("off")

    def line(up: float, text: str, size: float = 10, **style: Any) -> None:
        # What comes from outside may hold a dollar sign, which would begin mathematics.
        shown = _plain(textwrap.shorten(text, int(1500 / size), placeholder=" …"))
        axis.text(0, up, shown, transform=axis.transAxes, va="top", fontsize=size, **style)

    line(1.0, shlex.join(recording.command), 9, color=SECOND, family="monospace")
    line(0.84, sentence(verdict), 17, weight="bold", color=_cause(verdict.bottleneck))
    evidence = "; ".join(one.rstrip(".") for one in verdict.evidence)
    line(0.6, f"confidence {100 * verdict.confidence:.0f}%: {evidence}")
    for number, change in enumerate(verdict.changes[:3]):
        line(0.44 - 0.13 * number, f"{number + 1}. {change.what} ({gain(change)})")
    figures = [
        f"{name} {numbers.text(value, unit)}"
        for name, value, unit in (
            ("throughput", summary.images_per_second, "images/s"),
            ("step", summary.step_seconds, "seconds"),
            ("MFU", summary.mfu, "share"),
            ("HFU", summary.hfu, "share"),
            ("energy an image", summary.joules_per_image, "J"),
        )
    ]
    line(0.0, " · ".join(figures), 11, weight="bold", color=INK)


def _shares(axis: Any, summary: Summary) -> None:
    axis.axis("off")
    if not summary.shares:
        axis.text(0, 0.5, "where a step's time goes: not known", color=SECOND, fontsize=9)
        return
    start = 0.0
    for name, share in sorted(summary.shares.items(), key=lambda item: -item[1]):
        axis.barh(0, share, left=start, color=_cause(name), edgecolor="white", linewidth=1.5)
        if share >= 0.07:
            label = f"{cause(name)}\n{numbers.text(share, 'share')}"
            axis.text(start + share / 2, 0, label, ha="center", va="center", color="white", fontsize=8)
        start += share
    axis.set_xlim(0, max(start, 1))


def _steps(axis: Any, recording: Recording) -> None:
    steps = next((of for of in recording.steps if of.end), None)
    _frame(
        axis,
        "seconds of each step, and of its waiting for data" if steps else "steps: not recorded",
        "seconds",
    )
    if steps is None:
        return
    whole = course(steps.end, steps.seconds, MOST_POINTS)
    waited = course(steps.end, steps.data, MOST_POINTS)
    axis.fill_between(whole.time, whole.low, whole.high, color=INK, alpha=0.2, linewidth=0)
    axis.plot(whole.time, whole.mean, color=INK, linewidth=1)
    axis.fill_between(waited.time, 0, waited.mean, color=_cause("data"), alpha=0.75, linewidth=0)
    usual = float(np.quantile(steps.seconds, 0.98))
    axis.set_ylim(0, 1.3 * usual)
    beyond = sum(one > 1.3 * usual for one in steps.seconds)
    if beyond:
        axis.set_title(f"{axis.get_title(loc='left')} ({beyond} beyond the top)", fontsize=9, loc="left")


def _roofline(axis: Any, recording: Recording) -> None:
    points = placed(recording.window.ops) if recording.window else []
    _frame(axis, "roofline of the operations" if points else "operations: not recorded", "operations/s")
    axis.set_xlabel("operations per byte", fontsize=8)
    if not points:
        return
    axis.set_xscale("log")
    axis.set_yscale("log")
    longest = points[0][0].seconds
    axis.scatter(
        [intensity for _, intensity, _ in points],
        [rate for _, _, rate in points],
        [max(12.0, 600 * op.seconds / longest) for op, _, _ in points],
        [colours.KINDS[op.kind][0] for op, _, _ in points],
        alpha=0.6,
    )
    named: list[tuple[float, float]] = []
    for op, intensity, rate in points[:8]:
        # Names of neighbours would lie over each other.
        if not any(abs(math.log10(intensity / x)) < 1 and abs(math.log10(rate / y)) < 0.3 for x, y in named):
            named.append((intensity, rate))
            name = _plain(short_name(op.name, 22))
            axis.annotate(name, (intensity, rate), (6, -14), textcoords="offset points", fontsize=7)
    peaks, used = recording.peaks, {op.dtype for op, _, _ in points}
    roofs = {name: peak for name, peak in (peaks.operations if peaks else {}).items() if name in used}
    bandwidth = peaks.bandwidth if peaks else None
    axis.margins(0.15)
    (left, right), (_, top) = axis.get_xlim(), axis.get_ylim()
    for name, peak in roofs.items():
        ridge = peak / bandwidth if bandwidth else left
        axis.plot([ridge, max(right, 2 * ridge)], [peak, peak], color=INK, linewidth=1)
        # Left of the ridge, above the slope, where no operation can lie.
        axis.text(
            ridge, peak, f"{name} {numbers.tick(peak, 'operations/s')} ", fontsize=7, ha="right", va="center"
        )
    if bandwidth:
        until = max(roofs.values(), default=top) / bandwidth
        axis.plot([left, until], [left * bandwidth, until * bandwidth], color=INK, linewidth=1)
        middle = math.sqrt(left * until)
        label = f"memory {numbers.tick(bandwidth, 'bytes/s')} "
        axis.text(middle, middle * bandwidth, label, fontsize=7, ha="right", va="bottom")
        axis.set_ylim(top=max(top, 2 * until * bandwidth))
    if not roofs and not bandwidth:
        axis.text(
            0.98,
            0.95,
            "no roof: the peak is unknown",
            transform=axis.transAxes,
            ha="right",
            va="top",
            fontsize=8,
        )


def _chief(recording: Recording) -> list[tuple[str, Quantity, list[float | None]]]:
    """Name, quantity and values of what is drawn; of the first GPU."""
    found = []
    wanted: list[tuple[str, Series, dict[str, Quantity], tuple[str, ...]]] = [
        (f"GPU {gpu.index}", gpu.series, GPU, CHIEF_GPU) for gpu in recording.samples.gpus[:1]
    ]
    wanted.append(("host", recording.samples.host, HOST, CHIEF_HOST))
    room = 4
    for which, series, known, names in wanted:
        there = [name for name in names if any(value is not None for value in series.get(name, ()))]
        # One place is kept for the host.
        taken = there[: room if which == "host" else room - 1]
        found += [(f"{which}: {known[name].title}", known[name], series[name]) for name in taken]
        room = 4 - len(found)
    return found


def _quantity(axis: Any, recording: Recording, title: str, of: Quantity, values: list[float | None]) -> None:
    _frame(axis, title, of.unit)
    drawn = course(recording.samples.time, values, MOST_POINTS)
    axis.fill_between(drawn.time, drawn.low, drawn.high, color=LINE, alpha=0.25, linewidth=0)
    axis.plot(drawn.time, drawn.mean, color=LINE, linewidth=1)
    axis.set_ylim(0, 1.02 if of.unit == "share" else None)
    axis.set_xlabel("seconds", fontsize=8)


def _frame(axis: Any, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.tick_params(which="both", labelsize=8)
    axis.yaxis.set_major_formatter(lambda value, _: numbers.tick(value, unit))


def _cause(name: str) -> str:
    return colours.CAUSES[name][0]


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
