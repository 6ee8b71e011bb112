"""Interleaving and the statistics of a timing."""

import pytest
import torch

from imagen_fast.benchmarks.measure import Effort, Sample, Timing, interleave, sampler

CPU = torch.device("cpu")


def samplers(**calls):
    return {name: sampler(call, CPU) for name, call in calls.items()}


def test_everyone_runs_once_a_round_in_rotating_order():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = interleave(samplers(**calls), Effort(warmup=1, least=3, most=3, seconds=0))
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {len(timing.samples) for timing in timings.values()} == {3}


def test_who_fails_leaves_the_race():
    order = []

    def second():
        order.append("b")
        if order.count("b") == 2:
            raise MemoryError("no room\nat all")

    calls = samplers(a=lambda: order.append("a"), b=second, c=lambda: order.append("c"))
    timings = interleave(calls, Effort(warmup=0, least=4, most=4, seconds=0))
    assert "".join(order) == "abc" + "bca" + "ac" + "ca"
    assert str(timings["b"]) == "MemoryError: no room"
    assert len(timings["a"].samples) == len(timings["c"].samples) == 4


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 2), (60, 5)])
def test_rounds_end_with_the_time_but_not_before_the_least(seconds, rounds):
    timings = interleave(samplers(a=lambda: None), Effort(0, least=2, most=5, seconds=seconds))
    assert len(timings["a"].samples) == rounds


def test_nobody_to_time():
    assert interleave({}, Effort(1, 2, 3, 0)) == {}


def test_median_and_interquartile_range():
    timing = Timing(tuple(Sample(s, 2 * s) for s in (5.0, 1.0, 2.0, 3.0, 4.0)))
    assert (timing.median, timing.spread, timing.cpu_median, timing.peak_bytes) == (3.0, 2.0, 6.0, None)
    assert Timing((Sample(1.0),)).spread == 0.0


def test_seconds_are_those_of_the_call():
    timing = interleave(samplers(a=lambda: sum(range(200_000))), Effort(0, 3, 3, 0))["a"]
    assert 0 < timing.median < 1
    assert timing.cpu_median is not None
    assert timing.peak_bytes is None
