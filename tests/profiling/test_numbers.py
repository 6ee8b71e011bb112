"""Numbers for people, and fewer of them."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import gpu_run

from imagen_fast.profiling import numbers
from imagen_fast.profiling.recording import Op, Peaks
from imagen_fast.profiling.roofline import reached, short_name
from imagen_fast.profiling.thinning import coarser, course


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "share", "unknown"),
        (0.0, "share", "0%"),
        (0.3657, "share", "36.6%"),
        (1.0, "share", "100%"),
        (0.00041, "share", "0.041%"),
        (0.1523, "seconds", "152 ms"),
        (0.0009996, "seconds", "1.00 ms"),
        (200.0, "seconds", "3 min 20 s"),
        (7500.0, "seconds", "2 h 05 min"),
        (85.52e9, "bytes", "85.5 GB"),
        (989e12, "operations/s", "989 TFLOP/s"),
        (999.6, "W", "1.00 kW"),
        (-3.2e6, "bytes/s", "-3.20 MB/s"),
        (61.4, "°C", "61 °C"),
        (1684.2, "images/s", "1,680 images/s"),
        (0.0, "bytes", "0 B"),
    ],
)
def test_text(value, unit, shown):
    assert numbers.text(value, unit) == shown


def test_ticks():
    assert numbers.ticks(0, 1, 3) == [0, 0.5, 1]
    assert numbers.ticks(34, 66, 4) == [40, 50, 60]
    assert [numbers.tick(at, "bytes") for at in numbers.ticks(0, 21e9, 3)] == ["0 B", "10 GB", "20 GB"]
    assert numbers.time_ticks(600, 5) == [(60 * at, f"{at} min") for at in (0, 2, 4, 6, 8, 10)]


def test_no_peak_is_lost_in_thinning():
    values = np.random.default_rng(0).random(10_007)
    values[7_777] = 40.0
    values[3:5] = np.nan
    thin = course(range(10_007), values.tolist(), 240)
    assert len(thin.mean) == 240
    assert thin.high.max() == 40
    assert thin.low.min() == np.nanmin(values)
    # Every value lies between the bounds of its own stretch.
    at = (
        np.searchsorted(np.linspace(0, 10_007, 240, endpoint=False).astype(int), np.arange(10_007), "right")
        - 1
    )
    known = np.isfinite(values)
    assert (thin.low[at] <= values)[known].all()
    assert (values <= thin.high[at])[known].all()


def test_gaps_stay_gaps():
    values = [1.0] * 300 + [None] * 300 + [2.0] * 300
    thin = course(range(900), values, 90)
    assert np.isnan(thin.mean[30:60]).all()
    assert (thin.mean[:30] == 1).all()
    assert (thin.mean[60:] == 2).all()


def test_a_coarser_recording_is_one():
    recording, _, _ = gpu_run(samples=3000)
    thinner, many = coarser(recording, 20_000)
    assert many > 1
    assert len(thinner.samples.time) == len(thinner.samples.host["cpu"]) == -(-3000 // many)
    assert thinner.steps[0].seconds == recording.steps[0].seconds[::many]
    assert len(recording.samples.time) == 3000
    assert coarser(recording, 10**7) == (recording, 1)


def test_share_of_the_nearer_roof():
    peaks = Peaks("chip", "data sheet", {"bfloat16": 100.0}, bandwidth=10.0)
    assert reached(Op("a", "matrix", 1, 2.0, 100.0, 100.0, 1.0, "bfloat16"), peaks) == (0.5, "bfloat16")
    assert reached(Op("a", "memory", 1, 2.0, 1.0, 1.0, 10.0, "bfloat16"), peaks) == (0.5, "memory")
    assert reached(Op("a", "copy", 1, 0.5, None, None, 10.0), peaks) == (2.0, "memory")
    # Its own peak is not known: memory may not be the bound.
    assert reached(Op("a", "matrix", 1, 2.0, 100.0, 100.0, 1.0, "float8"), peaks) is None
    assert reached(Op("a", "matrix", 1, 2.0, 100.0, 100.0, 1.0, "bfloat16"), None) is None


def test_short_names():
    assert short_name("aten::mm") == "mm"
    assert len(short_name("x" * 99)) <= 30
