"""Fewer numbers for the same course: what a picture can show, and what a page can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from imagen_fast.profiling.recording import Recording, Samples, Series, Steps


class Course(NamedTuple):
    """float64 [n] each; NaN where nothing was read. Unthinned, `low`, `mean` and `high` are the values."""

    time: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray

    @property
    def thinned(self) -> bool:
        return self.low is not self.high


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """float64 [n]; None and what is not finite become NaN."""
    array = np.array(values, dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array


def course(time: Sequence[float], values: Sequence[float | None], most: int) -> Course:
    """At most `most` points: of every run of samples its lowest, mean and highest: no peak is lost."""
    when, what = numbers(time), numbers(values)
    if len(what) <= most:
        return Course(when, what, what, what)
    starts = np.linspace(0, len(what), most, endpoint=False).astype(int)
    known = np.add.reduceat(np.isfinite(what), starts)
    with np.errstate(invalid="ignore"):
        mean = np.add.reduceat(np.nan_to_num(what), starts) / known
    middle = np.add.reduceat(when, starts) / np.diff(starts, append=len(what))
    return Course(middle, np.fmin.reduceat(what, starts), mean, np.fmax.reduceat(what, starts))


def coarser(recording: Recording, most: int) -> tuple[Recording, int]:
    """A recording of at most about `most` numbers, and how many samples or steps became one of its own.

    Samples are replaced by the means of as many; of steps every so-many-th is kept: a mean of steps is none.
    """
    samples = recording.samples
    series = [samples.host, *(gpu.series for gpu in samples.gpus)]
    held = len(samples.time) * (1 + sum(map(len, series))) + sum(5 * len(of.end) for of in recording.steps)
    many = math.ceil(held / most)
    if many <= 1:
        return recording, 1
    thinner = Samples(
        interval=samples.interval * many,
        time=_means(samples.time, many),  # type: ignore[arg-type]
        host=_fewer(samples.host, many),
        gpus=[replace(gpu, series=_fewer(gpu.series, many)) for gpu in samples.gpus],
        absent=samples.absent,
    )
    steps = [_every(of, many) for of in recording.steps]
    return replace(recording, samples=thinner, steps=steps), many


def _fewer(series: Series, many: int) -> Series:
    return {name: _means(values, many) for name, values in series.items()}


def _means(values: Sequence[float | None], many: int) -> list[float | None]:
    means = course(values, values, math.ceil(len(values) / many)).mean  # type: ignore[arg-type]
    return [None if math.isnan(mean) else float(mean) for mean in means]


def _every(steps: Steps, many: int) -> Steps:
    lists = ("end", "seconds", "data", "data_cpu", "images")
    kept = {name: getattr(steps, name)[::many] for name in lists}
    return replace(steps, every=steps.every * many, **kept)
