"""Curves of a record as pictures: time over what grows, of ours and its peers, with the roofline below.

Each says where it was measured, with what and when; bars reach from the first to the third quartile, and what
is faster than its roofline, which is refused as a share of it, has a ring.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.record import Record
from imagen_fast.benchmarks.report import machine_facts
from imagen_fast.errors import InvalidInput
from imagen_fast.tasks.pictures import INK, new_figure, save

# Told apart by the colour-blind too (Okabe & Ito 2008); ours is darker than all.
COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
MARKERS = "s^vDPX*"

TITLE, NOTE = 66, 150  # letters in a line
REFUSED = "over 100%: refused"

# How many times the smallest time the largest may be for ticks closer than the powers of ten.
LESS = 100
_ONE_TWO_FIVE = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]

# What reaches from 0 to 1; the rest grows by factors.
SHARES = ("hidden share",)


def draw(record: Record, folder: Path) -> dict[str, Path]:
    """A PNG for each curve, by the curve's name and the device, which its file's name has too.

    Raises:
        InvalidInput: the record has no curves, or the folder cannot be written to.
        MissingPackage: matplotlib is not installed.
    """
    found = curves(record)
    if not found:
        raise InvalidInput("the record has no curves; imagen-fast bench SUITE --curves --json FILE makes one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return dict(_draw(record, name, results, folder) for name, results in found.items())
    except OSError as error:
        raise InvalidInput(f"the pictures cannot be written to {folder}: {error.strerror}") from error


def curves(record: Record) -> dict[str, list[Any]]:
    """The results of each curve that have a time."""
    found: dict[str, list[Any]] = {}
    for result in record["results"]:
        if result.get("curve") and result["median"] is not None:
            found.setdefault(result["curve"]["name"], []).append(result)
    return found


def _draw(record: Record, name: str, results: list[Any], folder: Path) -> tuple[str, Path]:
    figure = new_figure(7.6, 4.0)
    axis = figure.subplots()
    peers = iter(zip(COLOURS, MARKERS, strict=True))
    for implementation in dict.fromkeys(result["implementation"] for result in results):
        colour, marker = (INK, "o") if implementation == OURS else next(peers, ("#aaaaaa", "."))
        own = [result for result in results if result["implementation"] == implementation]
        own.sort(key=_place)
        medians = [_milliseconds(result["median"]) for result in own]
        axis.errorbar(
            [_place(result) for result in own],
            medians,
            _bars(own, medians),
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.4 if implementation == OURS else 1.4,
            elinewidth=1,
            capsize=2,
            label=implementation,
            zorder=3 if implementation == OURS else 2,
        )
    refused = [(_place(result), _milliseconds(result["median"])) for result in results if result["refused"]]
    if refused:
        style = {"color": "red", "markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
        axis.plot(*zip(*refused, strict=True), marker="o", zorder=4, label=REFUSED, **style)
    floor = sorted(
        (_place(result), _milliseconds(result["roofline_seconds"]))
        for result in results
        if result["implementation"] == OURS and result["roofline_seconds"]
    )
    if floor:
        axis.plot(*zip(*floor, strict=True), color="black", linestyle="--", linewidth=1, label="roofline")
    machine = record["machine"]
    name = f"{name}, {machine.get('gpu') or machine['device'].upper()}"
    _label(axis, name, results)
    note = f"Bars: interquartile range. {machine_facts(record)}"
    figure.supxlabel(textwrap.fill(note, NOTE), x=0.01, ha="left", fontsize=6, color="#555555")
    # Beside the lines: there is no corner that none of so many comes through.
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"
    save(figure, path)
    return name, path


def _place(result: Any) -> float:
    return float(result["curve"]["value"])


def _milliseconds(seconds: float) -> float:
    return seconds * 1000


def _bars(results: list[Any], medians: list[float]) -> np.ndarray:
    """[2, points]: from the first quartile to the median, and from there to the third, in milliseconds."""
    quartiles = np.array([np.percentile(result["samples"], (25, 75)) for result in results])
    low, high = _milliseconds(1) * quartiles.T
    return np.maximum([medians - low, high - medians], 0)  # what is below zero, rounding has made


def _label(axis: Any, name: str, results: list[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    grows = results[0]["curve"]["x"]
    values = sorted({result["curve"]["value"] for result in results})
    if grows not in SHARES:
        axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(values, [_short(value, grows) for value in values])
    axis.minorticks_off()
    low, high = axis.get_ylim()
    if high < LESS * low:
        ticks = [value for value in _ONE_TWO_FIVE if low <= value <= high]
        if len(ticks) >= 2:
            axis.set_yticks(ticks)
        else:  # nor do powers of ten lie there: those of a linear axis
            axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel(grows)
    axis.set_ylabel("milliseconds a call (median)")
    axis.set_title(textwrap.fill(name, TITLE), fontsize=9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _short(value: float, grows: str) -> str:
    if grows in SHARES:
        return f"{value:.0%}"
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:g}"
