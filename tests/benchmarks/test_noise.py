"""The statistics beneath a comparison: a contender's time, and what lies between two runs."""

import math

import numpy as np
import pytest

from imagen_fast.benchmarks.noise import Noise, Timed, centre, centres, student


def timed(rng, change, contest="c", reference=True, rounds=100, noise=0.01):
    a, b = (np.exp(rng.normal(0, noise, rounds)) for _ in range(2))
    return Timed(contest, reference, centre(a), centre(b * math.exp(change)))


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [
        (0.95, 2, 4.3027),
        (0.95, 3, 3.1824),
        (0.999, 3, 12.924),
        (0.95, 10, 2.2281),
        (0.99, 6, 3.7074),
        (0.999, 20, 3.8495),
        (0.95, math.inf, 1.9600),
    ],
)
def test_students_t_is_that_of_the_tables(confidence, freedom, t):
    assert student(confidence, freedom) == pytest.approx(t, rel=0.001)


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


def test_more_rounds_in_one_record_make_it_no_faster():
    """The fastest 3 of 5 lie higher than the fastest third of 60: here by 4% in the mean."""
    rng = np.random.default_rng(6)
    pairs = [tuple(np.exp(rng.exponential(0.1, rounds)) for rounds in (60, 5)) for _ in range(300)]
    assert abs(np.mean([b.log - a.log for a, b in centres(pairs)])) < 0.01


def test_few_rounds_count_for_less_where_those_of_the_record_resemble_their_neighbours():
    rng = np.random.default_rng(7)
    drifting = [np.exp(0.01 * np.cumsum(rng.normal(0, 1, 15))) for _ in range(20)]
    alone = [centre(seconds).error for seconds in drifting]
    together = [a.error for a, _ in centres(list(zip(drifting, drifting, strict=True)))]
    assert all(t >= a for t, a in zip(together, alone, strict=True))
    assert (
        sum(t > 1.2 * a for t, a in zip(together, alone, strict=True)) >= 3
    )  # whose drift looks like chance
    still = [np.exp(rng.normal(0, 0.01, 15)) for _ in range(20)]
    assert np.mean([a.error for a, _ in centres(list(zip(still, still, strict=True)))]) == pytest.approx(
        np.mean([centre(seconds).error for seconds in still]), rel=0.15
    )


def test_runs_that_differ_count_for_less_than_their_rounds():
    """Of processes that stray by 3%, with rounds that stray by 1%: these tell too little alone."""
    rng = np.random.default_rng(10)
    found, alone = [], []
    for _ in range(60):
        moved = np.repeat(rng.normal(0, 0.03, (2, 8, 12)), 20, axis=2)  # [A and B, contenders, rounds]
        seconds = np.exp(moved + rng.normal(0, 0.01, moved.shape))
        pairs, runs = list(zip(*seconds, strict=True)), [((20,) * 12,) * 2] * 8
        found += [a for a, _ in centres(pairs, runs)]
        alone += [centre(rng.permutation(a)).error for a, _ in pairs]
    strayed = np.std([c.log for c in found])
    assert 0.7 < math.sqrt(np.mean([c.error**2 for c in found])) / strayed < 1.35
    assert strayed > 2 * np.mean(alone)
    assert {len(c.influence) for c in found} == {12}


def test_who_was_disturbed_as_no_reference_was_is_uncertain():
    rng = np.random.default_rng(8)
    references = [timed(rng, 0.0) for _ in range(8)]
    calm = np.exp(rng.normal(0, 0.01, 60))
    busy = np.exp(0.02 + rng.exponential(0.1, 60))
    widths = []
    for seconds in (calm * 1.03, busy):
        ours = Timed("c", False, centre(calm), centre(seconds))
        low, high = Noise([*references, ours]).effect(ours).interval(0.95)
        widths.append(high - low)
    assert widths[0] < 0.03
    assert widths[1] > 4 * widths[0]


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


def test_few_rounds_are_as_uncertain_as_their_degrees_of_freedom():
    rng = np.random.default_rng(9)
    references = [timed(rng, 0.0, noise=0.001) for _ in range(12)]
    for _ in range(20):
        ours = timed(rng, 0.0, reference=False, rounds=5, noise=0.03)
        effect = Noise([*references, ours]).effect(ours)
        low, high = effect.interval(0.995)
        assert high - low > 2 * 0.95 * student(0.995, ours.freedom) * math.sqrt(ours.variance)


def test_the_fewer_references_the_wider_the_interval():
    rng = np.random.default_rng(3)
    ours = timed(rng, 0.0, reference=False)
    references = [timed(rng, 0.0) for _ in range(12)]
    widths = []
    for count in (0, 1, 3, 12):
        low, high = Noise([ours, *references[:count]]).effect(ours).interval(0.95)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1
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
