"""Numbers as people read them: three digits, and a prefix in place of an exponent."""

from __future__ import annotations

import math

UNKNOWN = "unknown"
PREFIXES = {
    1e18: "E",
    1e15: "P",
    1e12: "T",
    1e9: "G",
    1e6: "M",
    1e3: "k",
    1.0: "",
    1e-3: "m",
    1e-6: "µ",
    1e-9: "n",
}
# As the units of `quantities` are written behind a prefix.
SYMBOLS = {"bytes": "B", "bytes/s": "B/s", "operations": "FLOP", "operations/s": "FLOP/s", "seconds": "s"}


def three(value: float) -> str:
    """Three significant digits, never an exponent: `1,230`, `45.6`, `0.0789`."""
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def text(value: float | None, unit: str) -> str:
    """A value with its unit: those of `quantities`, `seconds`, `operations`, `operations/s`, `images/s`."""
    if value is None:
        return UNKNOWN
    match unit:
        case "share":
            return f"{_percent(100 * value)}%"
        case "seconds" if value >= 120:
            return duration(value)
        case "°C":
            return f"{value:.0f} °C"
        case "cores" | "images/s" | "":
            return f"{three(value)} {unit}".rstrip()
    size, prefix = _prefix(value)
    return f"{three(value / size)} {prefix}{SYMBOLS.get(unit, unit)}"


def tick(value: float, unit: str) -> str:
    """A round value on an axis: no digits that say nothing."""
    amount, blank, symbol = text(value, unit).partition(" ")
    number = amount.removesuffix("%")
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return short + amount[len(number) :] + blank + symbol


def duration(seconds: float) -> str:
    """`45.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 120:
        return f"{three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    return steps_of(low, high, _round_up((high - low) / most))


def time_ticks(high: float, most: int) -> list[tuple[float, str]]:
    """Round times from 0 to `high` seconds with their labels, all in one unit."""
    unit, name = (3600.0, "h") if high >= 7200 else (60.0, "min") if high >= 120 else (1.0, "s")
    return [(unit * at, f"{at:g} {name}") for at in ticks(0, high / unit, most)]


def steps_of(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value * (1 - 1e-9))


def _percent(value: float) -> str:
    """One decimal; two digits of what is less than 1."""
    if abs(value) < 0.01:
        return "0"
    if abs(value) < 0.995:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) < 99.95 else f"{value:,.0f}"


def _prefix(value: float) -> tuple[float, str]:
    # 999.6 is written with four digits, so it already belongs to the next prefix.
    least = abs(float(f"{value:.3g}"))
    return next(((size, name) for size, name in PREFIXES.items() if least >= size), (1.0, ""))
