from __future__ import annotations

import pytest
import torch

from imagen_fast import ops
from imagen_fast.errors import InvalidInput

DTYPES = (torch.float32, torch.bfloat16)
REDUCTIONS = ("mean", "sum", "none")
# (hidden, logistics, levels): odd and prime, one logistic, two levels, the usual, more than a block.
SIZES = (
    ((3, 29, 19), 5, 37),
    ((31, 7), 1, 16),
    ((40, 8), 3, 2),
    ((2, 2, 67, 64), 10, 256),
    ((1301, 33), 11, 200),
)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_is_within_the_error_bound(
    size, bias, reduction, dtype, make_predicted_rows, likelihood_bound, poisoned_memory
):
    shape, logistics, levels = size
    *tensors, given = make_predicted_rows(shape, 3 * logistics, levels, dtype)
    likelihood_bound(
        ops.pixel_logistic_mixture,
        (*tensors, given if bias else None),
        dtype,
        levels=levels,
        reduction=reduction,
        backend="cpu",
    )


@pytest.mark.parametrize("scale", [-9.0, -7.0, -5.0, -2.0, 1.0, 4.0])
@pytest.mark.parametrize("away", [0.1, 1.0, 8.0])
def test_narrow_wide_and_distant_logistics(scale, away, make_predicted_rows, likelihood_bound):
    """From scales below the least one, of which the gradient is zero, to ones far beyond the line."""
    hidden, weight, target, bias = make_predicted_rows((500, 16), 12, 256, torch.float32)
    bias[4:8], bias[8:] = bias[4:8] * away, scale + 0.1 * bias[8:]
    tensors = hidden, weight * 0.1, target, bias
    ours = likelihood_bound(
        ops.pixel_logistic_mixture, tensors, torch.float32, reduction="none", backend="cpu"
    )
    if scale == -9.0:
        assert not ours["bias"][8:].any()
        assert not ours["weight"][8:].any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_the_probabilities_of_all_levels_sum_to_one(backend, levels, make_predicted_rows):
    hidden, weight, _, bias = make_predicted_rows((1, 12), 12, levels, torch.float32)
    every = torch.arange(levels)
    loss = ops.pixel_logistic_mixture(
        hidden.expand(levels, -1), weight, every, bias, levels=levels, reduction="none", backend=backend
    )
    torch.testing.assert_close((-loss.double()).exp().sum().item(), 1.0, rtol=1e-5, atol=0)


def test_the_reference_is_the_difference_of_two_logistic_functions(make_predicted_rows):
    levels, logistics = 64, 4
    hidden, weight, target, bias = make_predicted_rows((200, 6), 3 * logistics, levels, torch.float64)
    weight[2 * logistics :] *= 0.1  # no scale so small that the difference is none
    share, mean, log_scale = (hidden @ weight.t() + bias).unflatten(-1, (3, logistics)).unbind(-2)
    half = 1 / (levels - 1)
    x = (2 * half * target - 1)[:, None]
    upper, lower = (((x + side - mean) / log_scale.exp()).sigmoid() for side in (half, -half))
    upper[target == levels - 1], lower[target == 0] = 1, 0
    likelihood = (share.softmax(-1) * (upper - lower)).sum(-1)
    ours = ops.pixel_logistic_mixture(
        hidden, weight, target, bias, levels=levels, reduction="none", backend="reference"
    )
    assert log_scale.min() > -5
    torch.testing.assert_close(ours, -likelihood.log())


def test_gradcheck(make_predicted_rows):
    hidden, weight, target, bias = make_predicted_rows((2, 7, 5), 6, 8, torch.float64)
    keep = target % 3 != 1

    def loss(hidden, weight, bias):
        return ops.pixel_logistic_mixture(
            hidden, weight, target, bias, levels=8, keep=keep, reduction="none", backend="reference"
        )

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in (hidden, weight, bias)])


@pytest.mark.parametrize(
    ("outputs", "levels", "message"),
    [
        (12, 1, "levels must be 2 or more, not 1"),
        (13, 16, "weight must have 3 rows a logistic, not 13 rows"),
        (0, 16, "weight must have 3 rows a logistic, not 0 rows"),
        (12, 8, "targets must be 0 to 7, not 15"),
    ],
)
def test_bad_input_is_one_sentence(outputs, levels, message):
    hidden, target = torch.randn(2, 8), torch.tensor([15, 0])
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.pixel_logistic_mixture(hidden, torch.randn(outputs, 8), target, levels=levels)
    assert "\n" not in str(caught.value)
