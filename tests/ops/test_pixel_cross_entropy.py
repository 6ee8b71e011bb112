from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from imagen_fast import ops
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference

DTYPES = (torch.float32, torch.bfloat16)
REDUCTIONS = ("mean", "sum", "none")
OPTIONS = (
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"sigma": 3.0},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "sigma": 0.7},
    {"label_smoothing": 1.0},
)
# (hidden, levels): odd and prime, one row, two levels, narrow, the usual, more than a block.
SIZES = (
    ((3, 29, 19), 37),
    ((1, 64), 256),
    ((31, 16), 2),
    ((53, 3), 41),
    ((2, 2, 67, 64), 256),
    ((1301, 33), 67),
)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_is_within_the_error_bound(
    size, options, reduction, dtype, make_predicted_rows, likelihood_bound, poisoned_memory
):
    tensors = make_predicted_rows(size[0], size[1], size[1], dtype)
    likelihood_bound(ops.pixel_cross_entropy, tensors, dtype, reduction=reduction, backend="cpu", **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_bias(reduction, dtype, make_predicted_rows, likelihood_bound):
    hidden, weight, target, _ = make_predicted_rows((3, 50, 24), 64, 64, dtype)
    ours = likelihood_bound(
        ops.pixel_cross_entropy, (hidden, weight, target, None), dtype, reduction=reduction, backend="cpu"
    )
    assert set(ours) == {"loss", "hidden", "weight"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_logits(dtype, make_predicted_rows, likelihood_bound):
    """Rows that are all but certain, of the right level and of a wrong one."""
    hidden, weight, target, bias = make_predicted_rows((300, 32), 40, 40, dtype)
    tensors = hidden * 64, weight, target, bias
    ours = likelihood_bound(ops.pixel_cross_entropy, tensors, dtype, reduction="none", backend="cpu")
    assert ours["loss"].max() > 100


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_pytorch_where_the_options_coincide(backend, reduction, label_smoothing, make_predicted_rows):
    hidden, weight, target, bias = make_predicted_rows((200, 24), 50, 50, torch.float32, torch.int64)
    target[::5] = -100
    ours = ops.pixel_cross_entropy(
        hidden,
        weight,
        target,
        bias,
        label_smoothing=label_smoothing,
        reduction=reduction,
        backend=backend,
    )
    theirs = functional.cross_entropy(
        functional.linear(hidden, weight, bias),
        target,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    torch.testing.assert_close(ours, theirs)


def test_soft_targets_are_distributions_around_the_target():
    target = torch.tensor([0, 9, 31])
    wanted = reference.soft_targets(target, 32, 0.1, 2.5, torch.float64)
    torch.testing.assert_close(wanted.sum(-1), torch.ones(3, dtype=torch.float64))
    assert wanted.argmax(-1).tolist() == target.tolist()
    torch.testing.assert_close(wanted[1, 6], wanted[1, 12])  # as far below as above
    hard = reference.soft_targets(target, 32, 0.0, 0.0, torch.float64)
    assert torch.equal(hard, functional.one_hot(target, 32).double())


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_narrow_gaussian_is_the_target_alone(backend, make_predicted_rows):
    hidden, weight, target, bias = make_predicted_rows((40, 8), 16, 16, torch.float32)
    narrow, hard = (
        ops.pixel_cross_entropy(hidden, weight, target, bias, sigma=sigma, backend=backend)
        for sigma in (1e-2, 0.0)
    )
    torch.testing.assert_close(narrow, hard)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck(options, make_predicted_rows):
    hidden, weight, target, bias = make_predicted_rows((2, 7, 5), 6, 6, torch.float64)
    keep = target % 3 != 0

    def loss(hidden, weight, bias):
        return ops.pixel_cross_entropy(
            hidden, weight, target, bias, keep=keep, reduction="none", backend="reference", **options
        )

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in (hidden, weight, bias)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing must be 0 to 1, not 1.5"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be 0 to 1, not nan"),
        ({"z_loss": -1.0}, "z_loss must be 0 or more, not -1.0"),
        ({"sigma": -2.0}, "sigma must be 0 or more levels, not -2.0"),
        ({"sigma": float("nan")}, "sigma must be 0 or more levels, not nan"),
        ({"reduction": "median"}, "'none', 'mean' or 'sum', not 'median'"),
    ],
)
def test_bad_options_are_one_sentence(options, message, make_predicted_rows):
    hidden, weight, target, bias = make_predicted_rows((4, 8), 16, 16, torch.float32)
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.pixel_cross_entropy(hidden, weight, target, bias, **options)
    assert "\n" not in str(caught.value)
