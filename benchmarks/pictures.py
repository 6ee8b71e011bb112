"""Curves of a record as pictures: time over what grows, of ours and its peers, with the roofline below."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.record import Record
from imagen_fast.errors import InvalidInput
from imagen_fast.tasks.pictures import INK, new_figure, save

# Told apart by the colour-blind too (Okabe & Ito 2008); ours is darker than all.
COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
MARKERS = "s^vDPX*"

TITLE = 80  # letters in a line

# How many times the smallest time the largest may be for ticks closer than the powers of ten.
LESS = 100
_ONE_TWO_FIVE = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]

# What reaches from 0 to 1; the rest grows by factors.
SHARES = ("hidden share",)


def draw(record: Record, folder: Path) -> dict[str, Path]:
    """A PNG for each curve, by the curve's name.

    Raises:
        InvalidInput: the record has no curves, or the folder cannot be written to.
        MissingPackage: matplotlib is not installed.
    """
    found = curves(record)
    if not found:
        raise InvalidInput("the record has no curves; imagen-fast bench SUITE --curves --json FILE makes one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {name: _draw(name, results, folder) for name, results in found.items()}
    except OSError as error:
        raise InvalidInput(f"the pictures cannot be written to {folder}: {error.strerror}") from error


def curves(record: Record) -> dict[str, list[Any]]:
    """The results of each curve that have a time."""
    found: dict[str, list[Any]] = {}
    for result in record["results"]:
        if result.get("curve") and result["median"] is not None:
            found.setdefault(result["curve"]["name"], []).append(result)
    return found


def _draw(name: str, results: list[Any], folder: Path) -> Path:
    figure = new_figure(7.6, 4.0)
    axis = figure.subplots()
    peers = iter(zip(COLOURS, MARKERS, strict=True))
    for implementation in dict.fromkeys(result["implementation"] for result in results):
        colour, marker = (INK, "o") if implementation == OURS else next(peers, ("#aaaaaa", "."))
        own = sorted(_points(results, implementation))
        axis.plot(
            *zip(*own, strict=True),
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.4 if implementation == OURS else 1.4,
            label=implementation,
            zorder=3 if implementation == OURS else 2,
        )
    floor = sorted(
        (result["curve"]["value"], result["roofline_seconds"] * 1000)
        for result in results
        if result["implementation"] == OURS and result["roofline_seconds"]
    )
    if floor:
        axis.plot(*zip(*floor, strict=True), color="black", linestyle="--", linewidth=1, label="roofline")
    _label(axis, name, results)
    # Beside the lines: there is no corner that none of so many comes through.
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"
    save(figure, path)
    return path


def _points(results: list[Any], implementation: str) -> Iterator[tuple[float, float]]:
    for result in results:
        if result["implementation"] == implementation:
            yield result["curve"]["value"], result["median"] * 1000


def _label(axis: Any, name: str, results: list[Any]) -> None:
    grows = results[0]["curve"]["x"]
    values = sorted({result["curve"]["value"] for result in results})
    if grows not in SHARES:
        axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(values, [_short(value, grows) for value in values])
    axis.minorticks_off()
    low, high = axis.get_ylim()
    if high < LESS * low:
        axis.set_yticks([value for value in _ONE_TWO_FIVE if low <= value <= high])
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
