"""When an answer counts as correct."""

import math

import pytest
import torch

from imagen_fast.benchmarks.correctness import FLOOR, HALF, Answer, Errors, errors, half_bound, within

TRUTH = Answer(2.0, {"w": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])})


def test_errors_are_relative_and_the_worst_parameter_counts():
    found = errors(Answer(2.2, {"w": torch.tensor([3.0, 4.5]), "b": torch.tensor([1.01])}), TRUTH)
    assert found == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("gradients", [{}, {"w": torch.ones(2)}, {**TRUTH.gradients, "more": torch.ones(1)}])
def test_a_gradient_that_is_missing_or_too_many_is_wrong(gradients):
    assert errors(Answer(2.0, gradients), TRUTH).gradient == math.inf


def test_nan_is_within_no_bound():
    assert not within(Errors(math.nan, 0.0), HALF, "x").correct
    nan = Answer(2.0, {**TRUTH.gradients, "b": torch.tensor([math.nan])})
    assert not within(errors(nan, TRUTH), HALF, "x").correct


def test_in_half_precision_ours_may_err_twice_as_much_as_the_plain_one():
    assert half_bound(Errors(0.01, 0.5)) == (0.02 + FLOOR, 1.0 + FLOOR)


def test_verdicts_join():
    both = within(Errors(0, 0), HALF, "x") & within(Errors(1, 0), HALF, "y")
    assert not both.correct
    assert list(both.evidence) == ["x, loss", "x, gradient", "y, loss", "y, gradient"]
