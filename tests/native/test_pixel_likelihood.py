"""The likelihoods of pixels against their definition, under every instruction set."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference

# (groups, rows, width, outputs): odd and prime, the usual, more than a block, wider than a partial sum.
SHAPES = ((2, 29, 19, 37), (1, 100, 64, 256), (3, 131, 7, 30), (1, 50, 401, 150))
TYPES = (torch.float32, torch.bfloat16)
OPTIONS = ({"ls": 0.0, "z": 0.0, "sigma": 0.0}, {"ls": 0.1, "z": 1e-2, "sigma": 1.5})


def make(shape, dtype, levels, outputs):
    groups, rows, width, _ = shape
    draw = torch.Generator().manual_seed(sum(shape))
    hidden = torch.randn(groups, rows, width, generator=draw).to(dtype)
    weight = (torch.randn(outputs, width, generator=draw) * 2 / width**0.5).to(dtype)
    bias = torch.randn(outputs, generator=draw).to(dtype)
    target = torch.randint(0, levels, (groups, rows), generator=draw, dtype=torch.int32)
    keep = torch.rand(groups, rows, generator=draw) < 0.7
    return hidden, weight, bias, target, keep


def by_definition(definition, tensors, options, dtype, d_losses):
    hidden, weight, bias, target, keep = tensors
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight, bias)]
    losses = definition(*leaves, target, keep, -100, *options)
    return losses.detach(), *torch.autograd.grad(losses, leaves, d_losses.to(losses.dtype))


def check(definition, kernel, tensors, options, dtype, error_bound):
    d_losses = torch.linspace(0.3, 1.7, tensors[3].numel()).view(tensors[3].shape)
    factor = 0.37
    problem = kernel(*tensors, -100, *options)
    log_z = torch.empty_like(d_losses)
    losses = problem.losses(log_z)
    rows = losses, *problem.backward(d_losses, log_z)
    total = problem.total(factor, gradients=True)
    summed = total.total, total.d_hidden, total.d_weight, total.d_bias
    assert problem.total(factor, gradients=False).total == total.total
    for ours, incoming in ((rows, d_losses), (summed, torch.full_like(d_losses, factor))):
        exact = by_definition(definition, tensors, options, torch.float64, incoming)
        peer = by_definition(definition, tensors, options, dtype, incoming)
        for name, a, e, p in zip(("loss", "hidden", "weight", "bias"), ours, exact, peer, strict=True):
            reduced = name == "loss" and ours is summed
            error_bound(
                *(x.sum() * factor if reduced and x is not a else x for x in (a, e, p.to(a.dtype))), name
            )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(shape, dtype, options, instruction_set, error_bound, poisoned_memory):
    tensors = make(shape, dtype, shape[3], shape[3])
    definition, kernel = reference.pixel_cross_entropy, native.cross_entropy
    check(definition, kernel, tensors, tuple(options.values()), dtype, error_bound)


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logistic_mixture(shape, dtype, levels, instruction_set, error_bound, poisoned_memory):
    tensors = make(shape, dtype, levels, shape[3] // 3 * 3)
    for scales in (tensors[1], tensors[2]):  # a narrow logistic magnifies the rounding of its mean
        scales[shape[3] // 3 * 2 :] *= 0.25
    definition, kernel = reference.pixel_logistic_mixture, native.logistic_mixture
    check(definition, kernel, tensors, (levels,), dtype, error_bound)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_no_number_of_threads_changes_a_bit(dtype, instruction_set, thread_count):
    tensors = make((3, 1501, 12, 40), dtype, 40, 40)
    made = []
    for threads in (1, 2, 5):
        thread_count(threads)
        made.append(native.cross_entropy(*tensors, -100, 0.0, 0.0, 0.0).total(1.0, gradients=True))
    for other in made[1:]:
        for name in ("total", "d_hidden", "d_weight", "d_bias"):
            assert torch.equal(getattr(other, name), getattr(made[0], name))


def test_what_is_not_a_number_stays_none(instruction_set):
    hidden, weight, bias, target, _ = make((1, 20, 8, 16), torch.float32, 16, 16)
    hidden[0, 7, 3] = float("nan")
    for kernel, options in ((native.cross_entropy, (0.0, 0.0, 0.0)), (native.logistic_mixture, (16,))):
        outputs = 16 if kernel is native.cross_entropy else 15
        losses = kernel(hidden, weight[:outputs], bias[:outputs], target, None, -100, *options).losses()
        assert losses.isnan().nonzero().tolist() == [[0, 7]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, w, b, t, k: (h.double(), w, b, t, k), "float32 or bfloat16"),
        (lambda h, w, b, t, k: (h[0], w, b, t, k), r"hidden must be \[G, M, E\]"),
        (lambda h, w, b, t, k: (h, w[:, 1:], b, t, k), r"hidden must be \[G, M, E\]"),
        (lambda h, w, b, t, k: (h, w, b[1:], t, k), "bias must have 16 values"),
        (lambda h, w, b, t, k: (h, w, b, t.float(), k), "target must be an integer"),
        (lambda h, w, b, t, k: (h, w, b, t[:, 1:], k), "target must be"),
        (lambda h, w, b, t, k: (h, w, b, t, k[:, 1:]), "keep must be"),
        (lambda h, w, b, t, k: (h, w, b, t, k.int()), "keep must be bool"),
        (lambda h, w, b, t, k: (h, w, b, t + 16, None), "targets must be 0 to 15"),
        (lambda h, w, b, t, k: (h.to("meta"), w, b, t, k), "on the CPU"),
    ],
)
def test_bad_arguments_are_named(change, message):
    tensors = change(*make((2, 20, 8, 16), torch.float32, 16, 16))
    with pytest.raises(InvalidInput, match=message):
        native.cross_entropy(*tensors, -100, 0.0, 0.0, 0.0).total(1.0, gradients=True)
