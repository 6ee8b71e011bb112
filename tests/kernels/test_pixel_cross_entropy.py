"""Pixel cross-entropy against its reference in float64: on the chip (half types, narrow) and in chunks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from predicting import Problem, compare, outcome
from torch import Tensor, library

from imagen_fast.kernels import pixel_cross_entropy as kernels
from imagen_fast.kernels import predicted_chunks
from imagen_fast.ops import reference

op = kernels.pixel_cross_entropy
PLAIN = (0.0, 0.0, 0.0)


def bounded(error_bound, problem: Problem, options: tuple[float, ...]) -> None:
    compare(error_bound, op, reference.pixel_cross_entropy, problem, *options)


# Levels and widths that fill a tile, that do not, and that are too wide for the chip; odd numbers of rows.
@pytest.mark.parametrize(
    ("levels", "width"), [(256, 64), (1, 1), (7, 20), (130, 128), (100, 72), (513, 48), (31, 200)]
)
@pytest.mark.parametrize("rows", [(1, 1), (2, 53)])
def test_shapes(error_bound, target, levels, width, rows) -> None:
    bounded(error_bound, Problem.of(target, rows, width, levels), PLAIN)


WIDTHS = pytest.mark.parametrize("width", [48, 136], ids=["narrow", "wide"])


@WIDTHS
@pytest.mark.parametrize(
    "options",
    [(0.1, 0.0, 0.0), (0.0, 1e-2, 0.0), (0.0, 0.0, 1.5), (1.0, 0.0, 0.3), (0.1, 1e-2, 40.0)],
    ids=["smoothing", "z-loss", "gaussian", "all smoothing", "all"],
)
@pytest.mark.parametrize("levels", [64, 50])
def test_options(error_bound, target, width, levels, options) -> None:
    bounded(error_bound, Problem.of(target, (1, 37), width, levels).some_count(), options)


@WIDTHS
def test_without_a_bias(error_bound, target, width) -> None:
    bounded(error_bound, replace(Problem.of(target, (3, 11), width, 40), bias=None), (0.1, 0.0, 0.0))


@WIDTHS
@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_targets_of_any_width(error_bound, target, width, kind) -> None:
    bounded(error_bound, Problem.of(target, (1, 21), width, 100, kind=kind), PLAIN)


def test_a_byte_has_no_negative_value_to_ignore(device) -> None:
    """-100 is 156 of a byte, which counts."""
    problem = Problem.of((device, torch.float32), (1, 5), 8, 200, kind=torch.uint8)
    problem = replace(problem, target=torch.full_like(problem.target, 156))
    assert (losses(problem) > 0).all()


@WIDTHS
def test_views(error_bound, target, width) -> None:
    """A sequence that predicts its own next element, and rows, targets and groups in any order."""
    bounded(error_bound, Problem.of(target, (3, 17), width, 40).shifted(1).some_count(), PLAIN)
    problem = Problem.of(target, (3, 17), width, 40).some_count()
    wide = torch.cat((problem.hidden, problem.hidden), -1)[..., :width]
    turned = problem.target.t().contiguous().t()
    bounded(error_bound, replace(problem, hidden=wide, target=turned), PLAIN)
    groups = replace(problem, hidden=problem.hidden[::2], target=problem.target[::2], keep=problem.keep[::2])
    bounded(error_bound, groups, PLAIN)


@pytest.mark.parametrize("kept", [False, True])
def test_many_chunks_are_one(error_bound, target, monkeypatch, kept) -> None:
    monkeypatch.setattr(predicted_chunks, "CHUNK", 40 * 4 * 64)
    problem = Problem.of(target, (2, 60), 136, 40, kind=torch.uint8)
    bounded(error_bound, problem.shifted(1), PLAIN)
    bounded(error_bound, problem.some_count() if kept else problem, (0.1, 1e-2, 2.0))


@WIDTHS
@pytest.mark.parametrize("kept", ["none", "one"])
def test_hardly_a_row_counts(target, width, kept) -> None:
    problem = Problem.of(target, (2, 9), width, 40)
    keep = torch.zeros_like(problem.target, dtype=torch.bool)
    keep[1, 4] = kept == "one"
    made = outcome(partial(with_options, summed=True), replace(problem, keep=keep), target[1], None)
    one = replace(problem, hidden=problem.hidden[1:, 4:5], target=problem.target[1:, 4:5])
    wanted = float(losses(one)) if kept == "one" else 0.0
    assert float(made["loss"]) == pytest.approx(wanted, rel=1e-6)
    assert bool(made["weight"].any()) == (kept == "one")


@WIDTHS
def test_no_row(target, width) -> None:
    problem = Problem.of(target, (2, 9), width, 40)
    empty = replace(problem, hidden=problem.hidden[:, :0], target=problem.target[:, :0])
    for weights in (None, torch.zeros(2, 0, device=target[0])):
        made = outcome(partial(with_options, summed=weights is None), empty, target[1], weights)
        assert made["hidden"].shape == empty.hidden.shape
        assert not made["weight"].any()
        assert not made["loss"].any()


@WIDTHS
def test_only_what_is_asked_for_is_made(target, width) -> None:
    """A frozen head or frozen rows: the other gradient is the same."""
    problem = Problem.of(target, (2, 9), width, 40)
    whole = outcome(partial(with_options, summed=True), problem, target[1], None)
    hidden, weight = (x.detach().requires_grad_() for x in (problem.hidden, problem.weight))
    loss = with_options(hidden, problem.weight, problem.bias, problem.target, None, -100, summed=True)
    assert torch.equal(torch.autograd.grad(loss * 3, hidden)[0], whole["hidden"])
    loss = with_options(problem.hidden, weight, problem.bias, problem.target, None, -100, summed=True)
    assert torch.equal(torch.autograd.grad(loss * 3, weight)[0], whole["weight"])
    with torch.no_grad():
        loss = with_options(hidden, weight, problem.bias, problem.target, None, -100, summed=True)
    assert not loss.requires_grad
    assert torch.equal(loss, whole["loss"])


@WIDTHS
def test_a_graph_can_be_gone_through_again(target, width) -> None:
    problem = Problem.of(target, (2, 9), width, 40)
    hidden, weight = (x.detach().requires_grad_() for x in (problem.hidden, problem.weight))
    for summed in (True, False):
        loss = with_options(hidden, weight, problem.bias, problem.target, None, -100, summed=summed).sum()
        first = torch.autograd.grad(loss * 3, (hidden, weight), retain_graph=True)
        second = torch.autograd.grad(loss * 3, (hidden, weight))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@WIDTHS
@pytest.mark.parametrize("summed", [True, False])
def test_runs_repeat_bit_for_bit(target, width, summed) -> None:
    problem = Problem.of(target, (2, 150), width, 40).some_count()
    weights = None if summed else torch.randn(2, 150).to(target[0])
    one, two = (outcome(partial(with_options, summed=summed), problem, target[1], weights) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@WIDTHS
def test_far_logits(target, width) -> None:
    """A certain and a hopeless row: no overflow, and no loss of the logarithm of zero."""
    problem = Problem.of(target, (1, 2), width, 40)
    problem = replace(problem, bias=torch.full_like(problem.bias, -30000.0), hidden=problem.hidden * 0)
    problem.bias[3] = 30000.0
    problem.target.copy_(torch.tensor([[3, 4]]))
    torch.testing.assert_close(
        losses(problem), torch.tensor([[0.0, 60000.0]], device=target[0]), rtol=1e-3, atol=0
    )


@WIDTHS
@pytest.mark.parametrize("summed", [True, False])
def test_op_obeys_the_rules_of_its_registration(device, width, summed) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    problem = Problem.of((device, torch.float16), (2, 5), width, 40)
    hidden, weight, bias = (x.requires_grad_() for x in (problem.hidden, problem.weight, problem.bias))
    given = (hidden, weight, bias, problem.target, None, -100, [0.1, 0.0, 0.0])
    if summed:
        given = (*given, torch.tensor(0.3, device=device), True, True)
        library.opcheck(torch.ops.imagen_fast.pixel_cross_entropy_sum_triton, given, test_utils=tests)
    else:
        library.opcheck(torch.ops.imagen_fast.pixel_cross_entropy_rows_triton, given, test_utils=tests)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("summed", [True, False])
def test_compiles_without_a_graph_break(device, summed, dtype) -> None:
    problem = Problem.of((device, dtype), (2, 5), 48, 40)
    hidden, weight = (x.detach().requires_grad_() for x in (problem.hidden, problem.weight))

    def step(hidden: Tensor, weight: Tensor) -> Tensor:
        loss = with_options(hidden * 2, weight, problem.bias, problem.target, None, -100, summed=summed)
        return loss.sum()

    backend = "inductor" if device == "cuda" else "aot_eager"
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for ours, theirs in zip(
        torch.autograd.grad(compiled(hidden, weight), (hidden, weight)),
        torch.autograd.grad(step(hidden, weight), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_products_are_counted(device) -> None:
    problem = Problem.of((device, torch.float16), (2, 5), 48, 40)
    product = 2 * 10 * 48 * 40
    hidden, weight = (x.detach().requires_grad_() for x in (problem.hidden, problem.weight))
    for summed in (True, False):
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            loss = with_options(hidden, weight, problem.bias, problem.target, None, -100, summed=summed)
            forward = counter.get_total_flops()
            loss.sum().backward()
        assert forward == (3 if summed else 1) * product
        assert counter.get_total_flops() == (3 if summed else 4) * product


def test_refusals_say_why(device) -> None:
    problem = Problem.of((device, torch.float32), (2, 5), 8, 40)
    given = (problem.hidden, problem.weight, problem.bias, problem.target, None)
    hidden, weight, bias, target, _ = given
    assert kernels.supports(*given) is None
    assert "float64" in kernels.supports(hidden.double(), weight.double(), None, target, None)
    assert "one of" in kernels.supports(hidden.half(), weight, None, target, None)
    assert "[40]" in kernels.supports(hidden, weight, bias[:3], target, None)
    assert "as many columns" in kernels.supports(hidden, weight[:, :3], bias, target, None)
    assert "stride" in kernels.supports(
        hidden.transpose(1, 2).contiguous().transpose(1, 2), weight, bias, target, None
    )
    assert "integers" in kernels.supports(hidden, weight, bias, target.float(), None)
    assert "bool" in kernels.supports(hidden, weight, bias, target, target)
    assert "8193 levels" in kernels.supports(hidden, weight[:1].expand(8193, 8), None, target, None)


def with_options(*given, summed: bool) -> Tensor:
    return op(*given, *PLAIN, 1.0 if summed else None)


def losses(problem: Problem) -> Tensor:
    given = (problem.hidden, problem.weight, problem.bias, problem.target, problem.keep, problem.ignore_index)
    return with_options(*given, summed=False)
