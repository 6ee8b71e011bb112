"""Series that stay small, and means that stay true."""

from __future__ import annotations

import pytest

from imagen_fast.profiling.bounded import Bounded

CPU, ENERGY, LATE = (-1, "cpu"), (0, "energy"), (0, "power")


def filled(count, most=8):
    kept = Bounded(most)
    for number in range(count):
        values = {CPU: float(number % 5), ENERGY: 10.0 * number, LATE: 100.0 if number >= count - 2 else None}
        kept.add(float(number + 1), 1.0, values)
    return kept


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 1001])
def test_what_was_counted_is_kept_at_every_length(count):
    times, columns = filled(count).columns()
    assert len(times) <= 8
    assert times == sorted(times)
    if not count:
        assert columns == {}
        return
    assert times[-1] == count
    # A rate times the time that it holds for: all that was counted.
    lengths = [end - begin for begin, end in zip([0, *times], times, strict=False)]
    counted = sum(rate * length for rate, length in zip(columns[CPU], lengths, strict=True))
    assert counted == pytest.approx(sum(number % 5 for number in range(count)), rel=1e-5)
    # What adds up itself has its last value, not a mean.
    assert columns[ENERGY][-1] == 10 * (count - 1)
    assert columns[LATE][-1] == 100
    assert len(columns[CPU]) == len(columns[LATE]) == len(times)


def test_resolution_is_halved_and_no_more_than_that():
    kept = filled(1001)
    times, _ = kept.columns()
    assert kept.coarser == 128
    assert 4 <= len(times) <= 8
    assert times[:-1] == [128.0 * (place + 1) for place in range(len(times) - 1)]


def test_means_weigh_by_time():
    kept = Bounded(2)
    kept.add(1.0, 1.0, {CPU: 4.0})
    kept.add(4.0, 3.0, {CPU: 0.0})
    assert kept.columns() == ([4.0], {CPU: [1.0]})


def test_a_short_last_row_joins_the_one_before():
    kept = Bounded()
    kept.add(1.0, 1.0, {CPU: 1.0})
    kept.add(1.01, 0.01, {CPU: 0.0}, last=True)
    assert kept.columns() == ([1.01], {CPU: [pytest.approx(1 / 1.01, rel=1e-6)]})
    kept = Bounded()
    kept.add(0.01, 0.01, {CPU: 0.5}, last=True)
    assert kept.columns() == ([0.01], {CPU: [0.5]})
