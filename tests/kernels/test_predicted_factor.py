"""The factor of a likelihood's sum: in its gradients before they are rounded, except to fp16."""

import pytest
import torch
from torch import Tensor

from imagen_fast.kernels import pixel_cross_entropy, pixel_logistic_mixture
from imagen_fast.ops import reference

FACTOR = 0.75

# The name, outputs, levels and options of each. With a hidden of zeros they are four equal logits, or
# logistics whose middle is where two levels meet: the gradients of all of them have few bits, times FACTOR
# too, so that what is rounded is the gradient of hidden alone.
CASES = pytest.mark.parametrize(
    ("name", "outputs", "levels", "options"),
    [("pixel_cross_entropy", 4, 4, (0.0, 0.0, 0.0)), ("pixel_logistic_mixture", 12, 2, (2,))],
    ids=["cross-entropy", "mixture"],
)
WIDTHS = pytest.mark.parametrize("width", [48, 136], ids=["narrow", "wide"])
OURS = {
    "pixel_cross_entropy": pixel_cross_entropy.pixel_cross_entropy,
    "pixel_logistic_mixture": pixel_logistic_mixture.pixel_logistic_mixture,
}


def problem(device: str, dtype: torch.dtype, width: int, outputs: int, levels: int) -> tuple[Tensor, ...]:
    torch.manual_seed(width + outputs)
    weight = torch.randn(outputs, width).to(device, dtype)
    target = torch.randint(0, levels, (2, 37)).to(device)
    return torch.zeros(2, 37, width, device=device, dtype=dtype), weight, target


def exact_gradient(name: str, hidden: Tensor, weight: Tensor, target: Tensor, options: tuple) -> Tensor:
    """That of `hidden` for the sum of the losses, in float64."""
    hidden = hidden.double().requires_grad_()
    losses = getattr(reference, name)(hidden, weight.double(), None, target, None, -100, *options)
    return torch.autograd.grad(losses.sum(), hidden)[0]


@CASES
@WIDTHS
def test_bf16_is_rounded_once(device, name, outputs, levels, options, width) -> None:
    if device == "cpu" and width == 48:
        pytest.skip(
            "the interpreter's bfloat16 products are wrong, and only wide rows are multiplied elsewhere"
        )
    hidden, weight, target = problem(device, torch.bfloat16, width, outputs, levels)
    leaf = hidden.clone().requires_grad_()
    loss = OURS[name](leaf, weight, None, target, None, -100, *options, FACTOR)
    (made,) = torch.autograd.grad(loss, leaf)
    exact = FACTOR * exact_gradient(name, hidden, weight, target, options)
    assert torch.equal(made, exact.to(torch.bfloat16))


@CASES
@WIDTHS
def test_the_operator_takes_a_factor_in_every_type(target, name, outputs, levels, options, width) -> None:
    """In fp16 too, where nobody hands it one: so the interpreter runs the kernels that keep the weight."""
    device, dtype = target
    hidden, weight, levels_wanted = problem(device, dtype, width, outputs, levels)
    op = getattr(torch.ops.imagen_fast, f"{name}_sum_triton")
    numbers = [float(x) for x in options]
    bias = torch.zeros(len(weight), device=device, dtype=dtype)
    given = (hidden, weight, bias, levels_wanted, None, -100, numbers)
    factor = torch.tensor(FACTOR, device=device)
    loss, d_hidden, d_weight, d_bias = op(*given, factor, True, True)
    plain = op(*given, None, True, True)
    assert bool(plain[3].any())
    for made, unscaled in ((loss, plain[0]), (d_weight, plain[2]), (d_bias, plain[3])):
        torch.testing.assert_close(made, unscaled * FACTOR)
    exact = FACTOR * exact_gradient(name, hidden, weight, levels_wanted, options)
    if dtype == torch.float32:  # of which cuBLAS may add the products in any order
        torch.testing.assert_close(d_hidden, exact.to(dtype))
    else:
        assert torch.equal(d_hidden, exact.to(dtype))


@CASES
@WIDTHS
def test_the_scale_of_a_loss_saves_small_gradients_of_fp16(
    device, name, outputs, levels, options, width
) -> None:
    """A mean over more rows than fp16 can count, as a scaler of gradients trains it."""
    hidden, weight, target = problem(device, torch.float16, width, outputs, levels)
    leaf = hidden.clone().requires_grad_()
    mean_of_many, scale = 2.0**-27, 2.0**24
    loss = OURS[name](leaf, weight, None, target, None, -100, *options, mean_of_many)
    (made,) = torch.autograd.grad(loss * scale, leaf)
    exact = mean_of_many * scale * exact_gradient(name, hidden, weight, target, options)
    torch.testing.assert_close(made, exact.to(torch.float16))
