"""The verdict and the machine in words, for every form of the report."""

from __future__ import annotations

from typing import Any

from imagen_fast.profiling import numbers
from imagen_fast.profiling.findings import BOTTLENECKS, Change, Verdict


def cause(name: str) -> str:
    """The short name of a cause of `BOTTLENECKS`: `waiting for data`, `copying`."""
    return BOTTLENECKS[name].partition(":")[0].partition(" between ")[0]


def sentence(verdict: Verdict) -> str:
    """What bounds the run: `Decoding: processors that turn files into tensors do not keep up.`"""
    meaning = BOTTLENECKS[verdict.bottleneck]
    return f"{meaning[0].upper()}{meaning[1:]}."


def certainty(confidence: float) -> str:
    word = "high" if confidence >= 0.8 else "moderate" if confidence >= 0.5 else "low"
    return f"{100 * confidence:.0f}% ({word})"


def gain(change: Change) -> str:
    """What a change promises, and where that is known from."""
    if change.gain is None:
        return "gain unknown"
    return f"up to {change.gain:.2f}× as fast, {change.basis}"


def fact(name: str, value: Any) -> str:
    """A fact about a machine; its name tells the unit."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {fact(key, inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int | float) and name.endswith("bytes"):
        return numbers.text(value, "bytes")
    if isinstance(value, int | float) and name.startswith("power"):
        return numbers.text(value, "W")
    return numbers.UNKNOWN if value is None else str(value)
