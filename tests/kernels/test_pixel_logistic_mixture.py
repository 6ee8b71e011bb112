"""The logistic mixture against its reference in float64: on the chip (half types, narrow) and in chunks."""

from dataclasses import replace

import pytest
import torch
from predicting import Problem, compare, outcome

from imagen_fast.kernels import pixel_logistic_mixture as kernels
from imagen_fast.kernels import predicted_chunks
from imagen_fast.kernels.pixel_logistic_mixture_launch import LEAST_LOG_SCALE
from imagen_fast.ops import reference

op = kernels.pixel_logistic_mixture
WIDTHS = pytest.mark.parametrize("width", [48, 136], ids=["narrow", "wide"])


def bounded(error_bound, problem: Problem, levels: int = 256) -> None:
    compare(error_bound, op, reference.pixel_logistic_mixture, problem, levels)


def test_both_know_the_least_scale() -> None:
    assert LEAST_LOG_SCALE == reference.LEAST_LOG_SCALE


@pytest.mark.parametrize(("logistics", "width"), [(10, 64), (1, 1), (16, 20), (17, 40), (3, 200)])
@pytest.mark.parametrize("rows", [(1, 1), (2, 53)])
def test_shapes(error_bound, target, logistics, width, rows) -> None:
    bounded(error_bound, Problem.of(target, rows, width, 3 * logistics, 256))


@WIDTHS
@pytest.mark.parametrize("levels", [2, 3, 256])
def test_levels(error_bound, target, width, levels) -> None:
    """With few of them most bins are the first or the last."""
    bounded(error_bound, Problem.of(target, (1, 37), width, 12, levels).some_count(), levels)


@WIDTHS
def test_views(error_bound, target, width) -> None:
    bounded(error_bound, Problem.of(target, (3, 17), width, 12, 256).shifted(1).some_count())
    bounded(error_bound, replace(Problem.of(target, (3, 17), width, 12, 256, torch.int32), bias=None))


def test_many_chunks_are_one(error_bound, target, monkeypatch) -> None:
    monkeypatch.setattr(predicted_chunks, "CHUNK", 40 * 4 * 64)
    bounded(error_bound, Problem.of(target, (2, 150), 136, 12, 256).some_count())


@WIDTHS
@pytest.mark.parametrize("log_scale", [-9.0, 3.0])
def test_far_scales(error_bound, target, width, log_scale) -> None:
    """Below the least scale there is no gradient; bins far narrower than a logistic keep their digits."""
    problem = Problem.of(target, (1, 21), width, 12, 256)
    problem.bias[8:] = log_scale
    problem.weight[8:] /= 16
    # A gradient in fp16 times 3 is rounded once more than the reference's, which shows in such large ones.
    compare(error_bound, op, reference.pixel_logistic_mixture, problem, 256, times=4)


@WIDTHS
def test_no_row_and_runs_that_repeat(target, width) -> None:
    problem = Problem.of(target, (2, 70), width, 12, 256)

    def run(problem: Problem) -> dict[str, torch.Tensor]:
        return outcome(lambda *given: op(*given, 256, 1.0), problem, target[1], None)

    one, two = run(problem), run(problem)
    assert all(torch.equal(one[name], two[name]) for name in one)
    empty = run(replace(problem, hidden=problem.hidden[:, :0], target=problem.target[:, :0]))
    assert empty["loss"] == 0
    assert not empty["weight"].any()


def test_refusals_say_why(device) -> None:
    problem = Problem.of((device, torch.float32), (2, 5), 8, 12, 256)
    given = (problem.hidden, problem.weight, None, problem.target, None)
    assert kernels.supports(*given) is None
    assert "3 each" in kernels.supports(problem.hidden, problem.weight[:4], None, problem.target, None)
