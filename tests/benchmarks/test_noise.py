"""The statistics beneath a comparison: a contender's time, and what lies between two runs."""

import math

import numpy as np
import pytest

from imagen_fast.benchmarks.noise import Noise, Timed, centre, student


def timed(rng, change, contest="c", reference=True, rounds=100, noise=0.01):
    a, b = (np.exp(rng.normal(0, noise, rounds)) for _ in range(2))
    return Timed(contest, reference, centre(a), centre(b * math.exp(change)))


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [(0.95, 4, 2.776), (0.95, 10, 2.228), (0.99, 6, 3.707), (0.999, 20, 3.850), (0.95, math.inf, 1.960)],
)
def test_students_t_is_that_of_the_tables(confidence, freedom, t):
    assert student(confidence, freedom) == pytest.approx(t, rel=0.01)


@pytest.mark.parametrize(("rounds", "alike"), [(9, 0.0), (15, 0.0), (60, 0.0), (60, 0.4)])
def test_the_standard_error_of_a_centre_is_how_far_it_strays(rounds, alike):
    """Of skewed times, some of them of rounds that resemble their neighbours."""
    rng = np.random.default_rng(rounds)
    found = []
    for _ in range(600):
        noise = rng.normal(0, 1, rounds)
        for i in range(1, rounds):
            noise[i] = alike * noise[i - 1] + math.sqrt(1 - alike**2) * noise[i]
        found.append(centre(1 + np.exp(noise) / 20))
    strayed = np.std([c.log for c in found])
    told = math.sqrt(np.mean([c.error**2 for c in found]))
    assert 0.7 < told / strayed < 1.35


def test_slow_rounds_do_not_move_a_centre():
    rng = np.random.default_rng(0)
    seconds = 1 + 0.01 * rng.random(60)
    disturbed = seconds.copy()
    disturbed[::2] *= 3
    assert abs(centre(disturbed).log - centre(seconds).log) < 0.005


def test_a_clock_that_does_not_move_and_rounds_that_are_equal_are_no_error():
    assert centre([0.0, 0.0, 0.0]).error == 0
    same = [Timed("c", reference, centre([1.0] * 5), centre([1.0] * 5)) for reference in (True, True, False)]
    assert Noise(same).effect(same[-1]).log == pytest.approx(0, abs=1e-6)


def test_what_the_references_share_is_taken_off():
    rng = np.random.default_rng(1)
    references = [timed(rng, 0.02 + rng.normal(0, 0.002), contest) for contest in "abc" for _ in range(4)]
    ours = timed(rng, 0.02 + 0.05, "a", reference=False)
    effect = Noise([*references, ours]).effect(ours)
    assert effect.expected == pytest.approx(0.02, abs=0.005)
    low, high = effect.interval(0.99)
    assert 0.02 < low < 0.05 < high < 0.08


def test_near_references_say_more_than_far_ones():
    rng = np.random.default_rng(2)
    moves = {"a": 0.03, "b": -0.03, "c": 0.0, "d": 0.01, "e": -0.02}
    references = [timed(rng, move, contest) for contest, move in moves.items() for _ in range(4)]
    effects = [
        Noise([*references, ours]).effect(ours) for ours in (timed(rng, 0.03, "a"), timed(rng, 0.03, "new"))
    ]
    assert effects[0].expected == pytest.approx(0.03, abs=0.006)
    assert abs(effects[1].expected) < 0.01
    assert effects[0].scale < effects[1].scale / 2


def test_the_fewer_references_the_wider_the_interval():
    rng = np.random.default_rng(3)
    ours = timed(rng, 0.0, reference=False)
    references = [timed(rng, 0.0) for _ in range(12)]
    widths = []
    for count in (0, 1, 3, 12):
        low, high = Noise([ours, *references[:count]]).effect(ours).interval(0.95)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.2
    assert widths[-1] < 0.03


def test_references_that_disagree_explain_little():
    rng = np.random.default_rng(4)
    ours = timed(rng, 0.0, reference=False)
    calm = [timed(rng, rng.normal(0, 0.002)) for _ in range(8)]
    wild = [timed(rng, rng.normal(0, 0.05)) for _ in range(8)]
    assert Noise([ours, *wild]).effect(ours).scale > 4 * Noise([ours, *calm]).effect(ours).scale


def test_a_machine_that_moved_far_leaves_every_case_uncertain():
    rng = np.random.default_rng(5)
    near, far = (
        [timed(rng, move, reference=False), *(timed(rng, move) for _ in range(8))] for move in (0.01, 0.1)
    )
    assert Noise(near).effect(near[0]).scale < 0.01
    assert Noise(far).effect(far[0]).scale > 0.05
