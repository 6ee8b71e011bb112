"""Two profiles beside each other: what changed by more than it varies within a run.

Steps and samples follow one another, and a slow one is seldom alone: whole blocks of them are drawn again
(circular block bootstrap: Politis and Romano 1992), lest the intervals be too narrow. They say nothing of
what differs from one run to the next on the same machine; only more runs would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imagen_fast.errors import InvalidInput
from imagen_fast.profiling import numbers
from imagen_fast.profiling.findings import Change, Summary, Verdict
from imagen_fast.profiling.quantities import GPU, HOST, Quantity
from imagen_fast.profiling.recording import Op, Recording, Steps, Window
from imagen_fast.profiling.summary import without_first
from imagen_fast.profiling.thinning import numbers as as_numbers
from imagen_fast.profiling.words import cause, certainty, fact, sentence

Interval = tuple[float, float]

# A smaller change is none that anybody would act on; relative, of shares absolute.
MATERIAL = 0.02
# One reading each, so the bound is wider: of an operation's own time, and of a step.
OPERATION, OF_STEP = 0.1, 0.01
FEWEST = 8
ROUNDS, MOST_DRAWN = 1000, 2000
LEVEL = 0.95
FIGURES = {
    "images_per_second": ("throughput", "images/s"),
    "mfu": ("model FLOP utilisation", "share"),
    "hfu": ("hardware FLOP utilisation", "share"),
    "joules_per_image": ("energy an image", "J"),
    "operations_per_step": ("operations a step", "operations"),
}


@dataclass
class StepTime:
    """Args:
    outcome: `faster`, `slower`, `same` or `unclear`.
    ratio: the median after, over that before; `interval` is its 95% interval.
    """

    outcome: str
    why: str
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    interval: Interval | None = None


@dataclass
class Difference:
    """Args:
    group: `figures`, `shares`, `operations` or `quantities`.
    interval: of after less before; None where there is one reading each.
    """

    group: str
    name: str
    unit: str
    before: float | None
    after: float | None
    interval: Interval | None = None


@dataclass
class Diff:
    """Args:
    verdicts: before and after.
    differences: only what changed.
    machines: what differs, with its values before and after; then nothing else need be due to the program.
    """

    step: StepTime
    verdicts: tuple[Verdict, Verdict]
    commands: tuple[list[str], list[str]]
    differences: list[Difference] = field(default_factory=list)
    machines: list[tuple[str, str, str]] = field(default_factory=list)


def compare(a: dict[str, Any], b: dict[str, Any]) -> Diff:
    """`a` before, `b` after: the content of two profiles' files.

    Raises:
        InvalidInput: one of them is no profile, of another version, or without conclusions.
    """
    before, after = _Profile(a, "the first file"), _Profile(b, "the second file")
    step = _step_time(before.step_samples(), after.step_samples())
    return Diff(
        step,
        (before.verdict, after.verdict),
        (before.recording.command, after.recording.command),
        [
            *_figures(before.summary, after.summary, step),
            *_shares(before.summary.shares, after.summary.shares),
            *_operations(before.recording.window, after.recording.window),
            *_quantities(before, after),
        ],
        _machines(before.recording, after.recording),
    )


class _Profile:
    def __init__(self, kept: dict[str, Any], which: str) -> None:
        try:
            self.recording = Recording.from_dict(kept)
        except InvalidInput as error:
            raise InvalidInput(f"{which}: {error}") from error
        try:
            self.summary = Summary(**kept["summary"])
            verdict = dict(kept["verdict"])
            self.verdict = Verdict(**verdict | {"changes": [Change(**one) for one in verdict["changes"]]})
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"{which} holds no summary and verdict that can be read: {error}") from error

    def steady(self) -> Steps | None:
        """The steps of one process."""
        return without_first(self.recording.steps[0]) if self.recording.steps else None

    def step_samples(self) -> np.ndarray:
        steps = self.steady()
        seconds = as_numbers(steps.seconds if steps else [])
        return seconds[seconds > 0]

    def samples(self) -> dict[tuple[str, Quantity], np.ndarray]:
        """By where and what: the samples between the first steady step and the last."""
        samples, steps = self.recording.samples, self.steady()
        time = as_numbers(samples.time)
        inside = np.ones(len(time), bool)
        if steps and steps.end:
            inside = (time >= steps.end[0]) & (time <= steps.end[-1])
        found = {("host", HOST[name]): of for name, of in samples.host.items() if name in HOST}
        for gpu in samples.gpus:
            # What only grows has no level.
            known = {name: of for name, of in gpu.series.items() if name in GPU and name != "energy"}
            found |= {(f"GPU {gpu.index}", GPU[name]): of for name, of in known.items()}
        kept = {key: as_numbers(of)[inside] for key, of in found.items()}
        return {key: of[np.isfinite(of)] for key, of in kept.items()}


def _step_time(before: np.ndarray, after: np.ndarray) -> StepTime:
    if not len(before) or not len(after):
        return StepTime("unclear", "one of the profiles has no steps")
    middle = float(np.median(before)), float(np.median(after))
    ratio = middle[1] / middle[0]
    fewest = min(len(before), len(after))
    if fewest < FEWEST:
        return StepTime("unclear", f"one has {fewest} steady steps; {FEWEST} are needed", *middle, ratio)
    one, other = _drawn(before, np.median, 0), _drawn(after, np.median, 1)
    interval = _between(other / one)
    told = f"95% interval of the ratio: {interval[0]:.3f} to {interval[1]:.3f}"
    if interval[0] >= 1 - MATERIAL and interval[1] <= 1 + MATERIAL:
        outcome = "same"
    elif interval[1] < 1 and ratio <= 1 - MATERIAL:
        outcome = "faster"
    elif interval[0] > 1 and ratio >= 1 + MATERIAL:
        outcome = "slower"
    else:
        outcome = "unclear"
    return StepTime(outcome, told, *middle, ratio, interval)


def _drawn(values: np.ndarray, statistic: Callable[..., np.ndarray], seed: int) -> np.ndarray:
    """[rounds]: the statistic of as many values again, drawn in blocks."""
    if len(values) > MOST_DRAWN:
        # In whole stretches, so that what follows one another still does.
        stretch = 100
        starts = np.linspace(0, len(values) - stretch, MOST_DRAWN // stretch).astype(int)
        values = values[(starts[:, None] + np.arange(stretch)).ravel()]
    many = len(values)
    block = math.ceil(many ** (1 / 3))
    # The same draws each time, so that a comparison is repeatable; others for each of the two.
    starts = np.random.default_rng(seed).integers(0, many, (ROUNDS, math.ceil(many / block), 1))
    places = ((starts + np.arange(block)) % many).reshape(ROUNDS, -1)[:, :many]
    return statistic(values[places], axis=1)


def _between(drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def _figures(before: Summary, after: Summary, step: StepTime) -> list[Difference]:
    # They follow from the step time, and are as uncertain as it is.
    noise = (step.interval[1] - step.interval[0]) / 2 if step.interval else 0.0
    found = []
    for name, (title, unit) in FIGURES.items():
        one, other = getattr(before, name), getattr(after, name)
        if one is None and other is None:
            continue
        if not one or other is None or abs(other / one - 1) > max(MATERIAL, noise):
            found.append(Difference("figures", title, unit, one, other))
    return found


def _shares(before: dict[str, float], after: dict[str, float]) -> list[Difference]:
    names = dict.fromkeys([*before, *after])
    both = [(name, before.get(name, 0.0), after.get(name, 0.0)) for name in names]
    return [
        Difference("shares", cause(name), "share", one, other)
        for name, one, other in both
        if abs(other - one) >= MATERIAL
    ]


def _operations(before: Window | None, after: Window | None) -> list[Difference]:
    """Seconds a step."""
    if not before or not after or not before.steps or not after.steps:
        return []
    one, other = ({op.name: _seconds(op, of) for op in of.ops} for of in (before, after))
    whole = max(before.seconds / before.steps, after.seconds / after.steps)
    found = []
    for name in dict.fromkeys([*one, *other]):
        was, now = one.get(name), other.get(name)
        change = abs((now or 0.0) - (was or 0.0))
        if change >= OF_STEP * whole and change >= OPERATION * max(was or 0.0, now or 0.0):
            found.append(Difference("operations", name, "seconds", was, now))
    return sorted(found, key=lambda one: -abs((one.after or 0.0) - (one.before or 0.0)))


def _seconds(op: Op, window: Window) -> float:
    return op.seconds / window.steps


def _quantities(before: _Profile, after: _Profile) -> list[Difference]:
    """Means. Dozens are compared at once: their intervals are wider, so that all hold (Bonferroni)."""
    one, other = before.samples(), after.samples()
    both = [key for key in one if key in other and min(len(one[key]), len(other[key])) >= FEWEST]
    found = []
    for where, quantity in both:
        earlier, later = one[where, quantity], other[where, quantity]
        was, now = float(earlier.mean()), float(later.mean())
        if abs(now - was) < (MATERIAL if quantity.unit == "share" else MATERIAL * abs(was)):
            continue
        spread = (_drawn(later, np.mean, 1) - _drawn(earlier, np.mean, 0)).std()
        around = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * len(both))) * float(spread)
        if abs(now - was) > around:
            interval = now - was - around, now - was + around
            found.append(
                Difference("quantities", f"{where}: {quantity.title}", quantity.unit, was, now, interval)
            )
    return found


def _machines(before: Recording, after: Recording) -> list[tuple[str, str, str]]:
    one, other = (_facts(of) for of in (before, after))
    both = [(name, one.get(name, "–"), other.get(name, "–")) for name in dict.fromkeys([*one, *other])]
    return [(name, was, now) for name, was, now in both if was != now]


def _facts(recording: Recording) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in recording.machine.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{name} {key}".strip().replace("_", " "): fact(key or name, one) for key, one in inner}
    return flat | {f"GPU {gpu.index}": gpu.name for gpu in recording.samples.gpus}


# --- in words -----------------------------------------------------------------------------------------


def headline(diff: Diff) -> str:
    """The outcome of the step time, in a sentence."""
    step = diff.step
    if step.ratio is None:
        return f"Unclear: {step.why}."
    times = f"{numbers.text(step.before, 'seconds')} before, {numbers.text(step.after, 'seconds')} after"
    return f"{step.outcome.capitalize()}: a step takes {times} ({step.ratio:.3f}×; {step.why})."


def shown(value: float | None, unit: str) -> str:
    return "–" if value is None else numbers.text(value, unit)


def change(of: Difference) -> str:
    """By how much, as in `+12.0%`; of shares in points."""
    if of.before is None or of.after is None:
        return "appeared" if of.before is None else "gone"
    if of.unit == "share":
        return f"{100 * (of.after - of.before):+.1f} points"
    return f"{100 * (of.after / of.before - 1):+.1f}%" if of.before else "from none"


def within(of: Difference) -> str:
    """The interval of the change, or why there is none."""
    if of.interval is None:
        return "one reading each"
    low, high = (numbers.text(end, of.unit) for end in of.interval)
    return f"{low} to {high}"


def groups(diff: Diff) -> dict[str, list[Difference]]:
    names = dict.fromkeys(one.group for one in diff.differences)
    return {name: [one for one in diff.differences if one.group == name] for name in names}


def show(diff: Diff, console: Console) -> None:
    colour = {"faster": "green", "slower": "red"}.get(diff.step.outcome, "bold")
    console.print(f"[{colour}]{escape(headline(diff))}[/]", highlight=False)
    for which, verdict in zip(("before", "after"), diff.verdicts, strict=True):
        said = f"{which}: {sentence(verdict)} Confidence {certainty(verdict.confidence)}."
        console.print(escape(said), highlight=False)
    for name, differences in groups(diff).items():
        table = Table(title=f"{name} that changed", title_justify="left", box=box.SIMPLE)
        table.add_column("")
        for heading in ("before", "after", "change", "interval of the change"):
            table.add_column(heading, justify="right")
        for one in differences:
            both = (shown(value, one.unit) for value in (one.before, one.after))
            table.add_row(escape(one.name), *both, change(one), within(one))
        console.print(table)
    if not diff.differences:
        console.print("Nothing else changed by more than it varies.")
    for name, was, now in diff.machines:
        console.print(escape(f"the machines differ: {name} {was} before, {now} after"), highlight=False)
