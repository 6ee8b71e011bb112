"""What the cross-entropy and the mixture of logistics promise alike: which rows count, layouts, gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import library
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import ops
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops import reference

LEVELS = 200
LIKELIHOODS = {
    "cross_entropy": (partial(ops.pixel_cross_entropy, sigma=2.0, z_loss=1e-3), LEVELS),
    "mixture": (partial(ops.pixel_logistic_mixture, levels=LEVELS), 15),
}
BACKENDS = ("reference", "cpu")
REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture(params=LIKELIHOODS)
def name(request):
    return request.param


@pytest.fixture
def op(name):
    return LIKELIHOODS[name][0]


@pytest.fixture
def rows(name, make_predicted_rows):
    """Of a shape, and of options of `make_predicted_rows`."""

    def make(shape, dtype=torch.float32, **options):
        return make_predicted_rows(shape, LIKELIHOODS[name][1], LEVELS, dtype, **options)

    return make


def assert_same(actual, expected):
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shift_is_a_slice_of_both(op, rows, outcome, backend, reduction):
    hidden, weight, target, bias = rows((3, 2, 11, 8))
    keep = target % 5 != 0
    shifted = outcome(
        op,
        (hidden, weight, target, bias),
        torch.float32,
        keep=keep,
        shift=2,
        reduction=reduction,
        backend=backend,
    )
    sliced = outcome(
        op,
        (hidden[..., :-2, :], weight, target[..., 2:], bias),
        torch.float32,
        keep=keep[..., 2:],
        reduction=reduction,
        backend="reference",
    )
    assert not shifted["hidden"][..., -2:, :].any()
    shifted["hidden"] = shifted["hidden"][..., :-2, :]
    assert_same(shifted, sliced)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("by", ["keep", "ignore_index", "both"])
def test_rows_that_do_not_count_change_nothing(op, rows, outcome, backend, reduction, by, poisoned_memory):
    hidden, weight, target, bias = rows((3, 57, 8), target=torch.int64)
    draw = torch.Generator().manual_seed(5)
    kept = torch.rand(target.shape, generator=draw) < 0.6
    unlike = torch.rand(target.shape, generator=draw) < 0.7
    counts = {"keep": kept, "ignore_index": unlike, "both": kept & unlike}[by]
    hidden[~counts] = float("nan")
    keep = None
    if by != "keep":
        target[~unlike] = -7
    if by != "ignore_index":
        keep = kept
        target[~kept & (target >= 0)] = 10**9  # of what does not count not even the target is looked at
    ours = outcome(
        op,
        (hidden, weight, target, bias),
        torch.float32,
        keep=keep,
        ignore_index=-7,
        reduction=reduction,
        backend=backend,
    )
    assert not ours["hidden"][~counts].any()
    if reduction == "none":
        assert not ours["loss"][~counts].any()
        return
    alone = outcome(
        op,
        (hidden[counts], weight, target[counts], bias),
        torch.float32,
        reduction=reduction,
        backend="reference",
    )
    ours["hidden"] = ours["hidden"][counts]
    assert_same(ours, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_row_that_counts_is_zero_with_zero_gradients(op, rows, outcome, backend):
    tensors = rows((2, 9, 8))
    for reduction in ("mean", "sum"):
        ours = outcome(
            op,
            tensors,
            torch.float32,
            keep=torch.zeros(2, 9, dtype=torch.bool),
            reduction=reduction,
            backend=backend,
        )
        assert not any(bool(x.any()) for x in ours.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 8), (3, 0, 8), (0, 5, 8)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows(op, rows, outcome, backend, shape, reduction, poisoned_memory):
    ours = outcome(op, rows(shape), torch.float32, reduction=reduction, backend=backend)
    assert ours["loss"].shape == (shape[:-1] if reduction == "none" else ())
    assert not any(bool(x.any()) for x in ours.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_vector(op, rows, backend):
    hidden, weight, target, bias = rows((4, 8))
    each = op(hidden, weight, target, bias, reduction="none", backend=backend)
    for reduction in REDUCTIONS:
        one = op(hidden[2], weight, target[2], bias, reduction=reduction, backend=backend)
        assert one.shape == ()
        torch.testing.assert_close(one, each[2])


def test_a_row_alone_gives_what_it_gives_among_others(op, rows):
    hidden, weight, target, bias = rows((61, 24))
    each = op(hidden, weight, target, bias, reduction="none", backend="cpu")
    for i in (0, 17, 47, 48, 60):
        assert torch.equal(
            op(hidden[i : i + 1], weight, target[i : i + 1], bias, reduction="none", backend="cpu")[0],
            each[i],
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64],
    ids=str,
)
def test_targets_of_any_width(op, rows, backend, dtype):
    hidden, weight, target, bias = rows((3, 17, 8))
    expected = op(hidden, weight, target.long(), bias, backend="reference")
    torch.testing.assert_close(op(hidden, weight, target.to(dtype), bias, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_ignore_index_is_no_byte(op, rows, backend):
    """-100 would wrap to 156."""
    hidden, weight, target, bias = rows((3, 17, 8))
    target[:] = 156
    losses = op(hidden, weight, target, bias, reduction="none", backend=backend)
    assert bool((losses != 0).all())
    assert not op(hidden, weight, target, bias, ignore_index=156, reduction="none", backend=backend).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_views_give_what_copies_give(op, rows, outcome, dtype, reduction):
    hidden, weight, target, bias = rows((4, 13, 10), dtype)
    wide = torch.full((4, 13, 17), float("nan"), dtype=dtype)
    wide[..., 3:13] = hidden
    views = {
        "wide": wide[..., 3:13],
        "turned": hidden.transpose(0, 1).contiguous().transpose(0, 1),
        "scattered": hidden.transpose(1, 2).contiguous().transpose(1, 2),
    }
    expected = outcome(op, (hidden, weight, target, bias), dtype, reduction=reduction, backend="cpu")
    strange = weight.t().contiguous().t(), target.t().contiguous().t(), bias
    for view in views.values():
        assert not view.is_contiguous()
        tensors = [x.detach().requires_grad_() for x in (view, strange[0], bias)]
        loss = op(tensors[0], tensors[1], strange[1], tensors[2], reduction=reduction, backend="cpu")
        loss.backward(torch.linspace(0.3, 1.7, loss.numel()).view(loss.shape))
        assert torch.equal(loss, expected["loss"])
        for x, key in zip(tensors, ("hidden", "weight", "bias"), strict=True):
            assert torch.equal(x.grad, expected[key])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_bitwise_the_same_at_any_number_of_threads(op, rows, outcome, dtype, reduction):
    tensors = rows((5, 1201, 20), dtype)
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            made.append(outcome(op, tensors, dtype, reduction=reduction, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(other[key], made[0][key]) for key in ("hidden", "weight", "bias"))
        assert torch.equal(other["loss"], made[0]["loss"])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_twice(op, rows, reduction):
    hidden, weight, target, bias = rows((3, 17, 8))
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    loss = op(hidden, weight, target, bias, reduction=reduction, backend="cpu").sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss * 2, leaves)
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(two, 2 * one)


def test_only_the_gradients_that_are_wanted(op, rows):
    hidden, weight, target, bias = rows((3, 17, 8))
    for reduction in REDUCTIONS:
        assert not op(hidden, weight, target, bias, reduction=reduction, backend="cpu").requires_grad
        x = weight.clone().requires_grad_()
        with torch.no_grad():
            assert not op(hidden, x, target, bias, reduction=reduction, backend="cpu").requires_grad
        op(hidden, x, target, bias, reduction=reduction, backend="cpu").sum().backward()
        assert x.grad.any()


def test_the_loss_of_half_rows_is_not_rounded_to_half(op, rows):
    hidden, weight, target, bias = rows((3, 40, 16), torch.bfloat16)
    loss = op(hidden, weight, target, bias, backend="cpu")
    exact = op(hidden.double(), weight.double(), target, bias.double(), backend="reference")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


def test_autocast(op, rows):
    hidden, weight, target, bias = rows((3, 40, 16))
    with torch.autocast("cpu", torch.bfloat16):
        loss = op(hidden, weight, target, bias, backend="cpu")
    halves = [x.bfloat16() for x in (hidden, weight, bias)]
    assert torch.equal(loss, op(halves[0], halves[1], target, halves[2], backend="cpu"))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiles_in_one_graph(op, rows, outcome, reduction):
    tensors = rows((3, 17, 8))
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    keep = tensors[2] % 3 != 0
    options = {"keep": keep, "shift": 1, "reduction": reduction}
    assert_same(
        outcome(compiled, tensors, torch.float32, **options),
        outcome(op, tensors, torch.float32, **options),
    )


@pytest.mark.parametrize("d_loss", [1.0, 0.5])
def test_a_graph_may_be_gone_through_twice(op, rows, d_loss):
    hidden, weight, target, _ = rows((3, 17, 8))
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    exact = torch.autograd.grad(op(*leaves, target, backend="reference") * d_loss, leaves)
    loss, incoming = op(*leaves, target, backend="cpu"), torch.tensor(d_loss)
    for _ in range(2):
        made = torch.autograd.grad(loss, leaves, incoming, retain_graph=True)
        torch.testing.assert_close(made, exact)
        for leaf, gradient in zip(leaves, exact, strict=True):  # added up, without touching what is saved
            leaf.grad = None
            loss.backward(incoming, retain_graph=True)
            loss.backward(incoming, retain_graph=True)
            torch.testing.assert_close(leaf.grad, 2 * gradient)
    both = torch.autograd.grad(loss, leaves, torch.stack([incoming, 3 * incoming]), is_grads_batched=True)
    torch.testing.assert_close(both, tuple(torch.stack([x, 3 * x]) for x in exact))


def test_the_incoming_gradient_has_a_gradient(op, rows):
    hidden, weight, target, _ = rows((3, 17, 8))
    incoming = torch.tensor(1.0, requires_grad=True)
    (made,) = torch.autograd.grad(
        op(hidden.requires_grad_(), weight, target, backend="cpu"), hidden, incoming, create_graph=True
    )
    (slope,) = torch.autograd.grad(made.sum(), incoming)
    torch.testing.assert_close(slope, made.detach().sum())


def test_the_default_type_changes_nothing(op, rows):
    hidden, weight, target, _ = rows((3, 17, 8))
    before = op(hidden, weight, target, backend="cpu")
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(op(hidden, weight, target, backend="cpu"), before)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_opcheck(name, rows, bias, keep):
    hidden, weight, target, b = rows((3, 17, 8))
    options = (-100, 0.1, 1e-3, 2.0) if name == "cross_entropy" else (-100, LEVELS)
    inputs = (
        hidden.requires_grad_(),
        weight.requires_grad_(),
        b.requires_grad_() if bias else None,
        target,
        target % 3 != 0 if keep else None,
        *options,
    )
    kernels = {
        "cross_entropy": "pixel_cross_entropy",
        "mixture": "pixel_logistic_mixture",
    }
    namespace = torch.ops.imagen_fast
    total = getattr(namespace, f"{kernels[name]}_cpu")
    library.opcheck(total, (*inputs, torch.tensor(0.3), True))
    halves = [None if x is None else x.detach().bfloat16() for x in inputs[:3]]
    library.opcheck(total, (*halves, *inputs[3:], torch.tensor(0.3), False))
    library.opcheck(getattr(namespace, f"{kernels[name]}_losses_cpu"), inputs)


def test_operations_are_counted_as_those_of_a_linear_layer(op, rows):
    hidden, weight, target, bias = rows((3, 17, 8))
    product = 2 * 3 * 17 * 8 * len(weight)

    def counted(reduction, backward):
        x = hidden.clone().requires_grad_(backward)
        with FlopCounterMode(display=False) as counter:
            loss = op(x, weight, target, bias, reduction=reduction, backend="cpu")
            if backward:
                loss.sum().backward()
        return counter.get_total_flops()

    assert counted("mean", False) == counted("none", False) == product
    assert counted("mean", True) == 3 * product
    assert counted("none", True) == 4 * product  # the projection is made again


def test_half_precision_and_doubles_go_to_the_reference(op, rows):
    for dtype in (torch.float16, torch.float64):
        hidden, weight, target, bias = rows((3, 17, 8), dtype)
        with pytest.raises(BackendUnavailable, match=f"float32 and bfloat16, and these are {dtype}"):
            op(hidden, weight, target, bias, backend="cpu")
        assert op(hidden, weight, target, bias).isfinite()


@pytest.mark.parametrize("value", [-1, LEVELS, 10**10])
def test_targets_that_are_no_levels(op, rows, value):
    hidden, weight, target, bias = rows((3, 17, 8), target=torch.int64)
    target[1, 3] = value
    message = f"targets must be 0 to {LEVELS - 1}, not {value}"
    with pytest.raises(InvalidInput, match=message):
        op(hidden, weight, target, bias)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    with pytest.raises(InvalidInput, match=message):
        compiled(hidden, weight, target, bias)
    assert op(hidden, weight, target, bias, keep=target != value).isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, w, t, b: (h[..., :-1], w, t, b), "hidden must be .* with one E"),
        (lambda h, w, t, b: (h, w[None], t, b), "hidden must be .* with one E"),
        (lambda h, w, t, b: (h, w, t, b[1:]), "one a row of weight"),
        (lambda h, w, t, b: (h, w.double(), t, b), "one floating-point type"),
        (lambda h, w, t, b: (h.long(), w.long(), t, b.long()), "one floating-point type"),
        (lambda h, w, t, b: (h, w, t.float(), b), "target must be integer, not torch.float32"),
        (lambda h, w, t, b: (h, w, t > 0, b), "target must be integer, not torch.bool"),
        (lambda h, w, t, b: (h, w, t[:, 1:], b), "one a row of hidden"),
    ],
)
def test_bad_tensors_are_one_sentence(op, rows, change, message):
    hidden, weight, target, bias = change(*rows((3, 17, 8)))
    with pytest.raises(InvalidInput, match=message) as caught:
        op(hidden, weight, target, bias)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": torch.ones(3, 17)}, "keep must be bool"),
        ({"keep": torch.ones(3, 16, dtype=torch.bool)}, "keep must be bool"),
        ({"shift": -1}, "shift must be 0 to the 17 elements"),
        ({"shift": 18}, "shift must be 0 to the 17 elements"),
        ({"reduction": "all"}, "'none', 'mean' or 'sum', not 'all'"),
    ],
)
def test_bad_options_are_one_sentence(op, rows, options, message):
    hidden, weight, target, bias = rows((3, 17, 8))
    with pytest.raises(InvalidInput, match=message) as caught:
        op(hidden, weight, target, bias, **options)
    assert "\n" not in str(caught.value)


def test_which_targets_count():
    target = torch.tensor([[156, 3, 7]], dtype=torch.uint8)
    assert reference.counting(target, None, -100).tolist() == [[True, True, True]]
    assert reference.counting(target, None, 3).tolist() == [[True, False, True]]
    keep = torch.tensor([[True, True, False]])
    assert reference.counting(target, keep, 3).tolist() == [[True, False, False]]
