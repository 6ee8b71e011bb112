"""Masked-patch attention against its definition, image by image, in float64."""

from dataclasses import replace

import pytest
import torch
from attention_sides import (
    compare,
    drawn,
    every,
    fused,
    gradients,
    listed,
    op,
    packed,
    poison,
    shown,
    sided,
)
from torch import Tensor, library

from imagen_fast.kernels import masked_patch_attention as kernels


# One-tile, two-phase and long backward; odd, prime, one-row, and all widths we promise. The long ones are few
# and have one head: the interpreter takes a second for each.
@pytest.mark.parametrize(
    ("images", "rows", "heads", "width"),
    [
        (2, 1, 2, 32),
        (3, 5, 1, 64),
        (5, 9, 3, 32),
        (1, 17, 2, 72),
        (2, 49, 1, 80),
        (1, 64, 1, 128),
        (1, 65, 1, 96),
        (1, 131, 2, 32),
        (1, 131, 1, 72),
        (1, 197, 1, 64),
        (1, 271, 1, 20),
    ],
)
def test_every_patch_sees_every_patch(error_bound, target, images, rows, heads, width) -> None:
    q, k, v = fused(images, rows, heads, width, target)
    compare(error_bound, q, k, v, every(images, rows), every(images, rows))


@pytest.mark.parametrize("asked", ["all", "visible", "hidden"])
@pytest.mark.parametrize(("images", "patches"), [(3, 16), (2, 70), (2, 300)])
def test_hidden_patches_in_place(error_bound, target, images, patches, asked) -> None:
    visible, hidden = shown(images, patches)
    rows = {"all": every(images, patches), "visible": listed(visible), "hidden": listed(hidden)}[asked]
    q, k, v = fused(images, patches, 1, 32, target)
    compare(error_bound, q, k, v, rows, listed(visible))


@pytest.mark.parametrize("counts", [[5, 0, 17, 1], [0, 0], [1], [3, 80, 2], [7, 260]])
@pytest.mark.parametrize("gap", [0, 3])
def test_packed_ragged_images(error_bound, target, counts, gap) -> None:
    side = packed(counts, gap)
    q, k, v = fused(1, sum(counts) + gap * len(counts), 2, 32, target)
    compare(error_bound, q[0], k[0], v[0], side, side)


@pytest.mark.parametrize("counts", [[5, 0, 9], [70, 3, 0]])
def test_hidden_queries_see_packed_keys(error_bound, target, counts) -> None:
    _, hidden = shown(3, 23)
    device, dtype = target
    q = torch.randn(3, 23, 2, 48).to(device, dtype)
    k, v = torch.randn(2, sum(counts), 2, 48).to(device, dtype)
    compare(error_bound, q, k, v, listed(hidden), packed(counts))


def test_a_bound_far_above_the_counts_costs_no_range(error_bound, device) -> None:
    """Probabilities over their share must not leave float16."""
    q, k, v = (x[0] for x in fused(1, 4, 1, 16, (device, torch.float16)))
    side = replace(packed([1, 3]), longest=40000)
    compare(error_bound, q, k, v, side, side)


@pytest.mark.parametrize("layout", ["heads first", "sliced", "batch second", "broadcast keys"])
def test_strides(error_bound, target, layout) -> None:
    device, dtype = target
    tensors = {
        "heads first": lambda: torch.randn(3, 2, 2, 19, 32).to(device, dtype).transpose(2, 3),
        "sliced": lambda: torch.randn(3, 2, 40, 5, 64).to(device, dtype)[:, :, 1:39:2, 1:3, 32:],
        "batch second": lambda: torch.randn(3, 19, 2, 2, 32).to(device, dtype).transpose(1, 2),
        "broadcast keys": lambda: torch.randn(3, 2, 19, 1, 32).to(device, dtype).expand(3, 2, 19, 2, 32),
    }[layout]()
    compare(error_bound, *tensors, every(2, 19), every(2, 19))


@pytest.mark.parametrize("patches", [16, 70, 300])
def test_hidden_content_changes_no_bit_and_runs_repeat(device, patches) -> None:
    visible, _ = shown(2, patches)
    side = listed(visible)
    q, k, v = fused(2, patches, 1, 32, (device, torch.float16))
    d_out = torch.randn_like(q.contiguous())
    placed = drawn("rotary and bias", 1, patches, patches, 32, (device, torch.float16))
    placed.bias.requires_grad_()

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        tensors = tuple(tensor.detach().requires_grad_() for tensor in tensors)
        out = op(*tensors, *sided(q, side, side, 0.2, placed))
        return gradients(out, (*tensors, placed.bias), d_out)

    clean, again = run(q, k, v), run(q, k, v)
    poisoned = run(*(poison(tensor, side) for tensor in (q, k, v)))
    names = ("out", "dq", "dk", "dv", "d_bias")
    for name, *values in zip(names, clean, again, poisoned, strict=True):
        assert torch.equal(values[0], values[1]), f"{name} differs between two runs"
        assert torch.equal(values[0], values[2]), f"{name} depends on hidden patches"


def test_expanded_gradient(device) -> None:
    """sum() hands back one value with all strides 0."""
    q, k, v = (x.detach().requires_grad_() for x in fused(1, 9, 1, 32, (device, torch.float32)))
    arguments = sided(q, every(1, 9), every(1, 9), 0.3)
    summed = torch.autograd.grad(op(q, k, v, *arguments).sum(), (q, k, v))
    ones = torch.autograd.grad(op(q, k, v, *arguments), (q, k, v), torch.ones(1, 9, 1, 32, device=device))
    assert all(torch.equal(a, b) for a, b in zip(summed, ones, strict=True))


def test_op_obeys_the_rules_of_its_registration(device) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    q, k, v = (x.detach().requires_grad_() for x in fused(2, 9, 1, 16, (device, torch.float32)))
    visible, hidden = shown(2, 9)
    library.opcheck(op, (q, k, v, *sided(q, every(2, 9), every(2, 9), 0.3)), test_utils=tests)
    library.opcheck(op, (q, k, v, *sided(q, listed(hidden), listed(visible), 0.3)), test_utils=tests)
    placed = drawn("rotary and bias", 1, 9, 9, 16, (device, torch.float32))
    placed.bias.requires_grad_()
    arguments = sided(q, listed(hidden), listed(visible), 0.3, placed)
    library.opcheck(op, (q, k, v, *arguments), test_utils=tests)
    backward = torch.ops.imagen_fast.masked_patch_attention_backward_triton
    tensors = [x.detach() for x in (q, q, k, v)]
    placed.bias.requires_grad_(False)
    for wanted in (False, True):
        library.opcheck(
            backward, (*tensors, *arguments, wanted), test_utils=("test_schema", "test_faketensor")
        )


def test_autocast_takes_the_type_in_force(device) -> None:
    q, k, v = (x.detach().requires_grad_() for x in fused(1, 9, 1, 32, (device, torch.float32)))
    with torch.autocast(device, dtype=torch.float16):
        out = op(q, k, v, *sided(q, every(1, 9), every(1, 9), 0.3))
    assert out.dtype == torch.float16
    assert {g.dtype for g in torch.autograd.grad(out.sum(), (q, k, v))} == {torch.float32}


def test_compiles_without_a_graph_break(device) -> None:
    q, k, v = fused(1, 9, 1, 32, (device, torch.float32))
    arguments = sided(q, every(1, 9), every(1, 9), 0.3)
    compiled = torch.compile(
        lambda q, k, v: op(q, k, v, *arguments) * 2,
        fullgraph=True,
        backend="inductor" if device == "cuda" else "aot_eager",
    )
    torch.testing.assert_close(compiled(q, k, v), op(q, k, v, *arguments) * 2)


def test_operations_are_counted(device) -> None:
    q, k, v = (x.detach().requires_grad_() for x in fused(2, 9, 3, 32, (device, torch.float32)))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        op(q, k, v, *sided(q, every(2, 9), every(2, 9), 0.3)).sum().backward()
    assert counter.get_total_flops() == 14 * 2 * 3 * 9 * 9 * 32


def test_no_image_and_no_patch(device) -> None:
    for shape in ((0, 4, 2, 32), (2, 0, 2, 32)):
        q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
        out = op(q, k, v, *sided(q, every(*shape[:2]), every(*shape[:2]), 0.3))
        assert out.shape == shape
        assert all(g.shape == shape for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_refusals_say_why(device) -> None:
    q, k, v = fused(2, 9, 1, 32, (device, torch.float32))
    spans = torch.tensor([[0, 9], [0, 9]], dtype=torch.int32, device=device)
    assert kernels.supports(q, k, v) is None
    assert kernels.supports(q, k, v, None, None, spans, spans) is None
    assert "float64" in kernels.supports(q.double(), k.double(), v.double())
    assert "head width is 160" in kernels.supports(*(torch.zeros(1, 2, 1, 160, device=device),) * 3)
    assert "stride" in kernels.supports(q.transpose(1, 3), k.transpose(1, 3), v.transpose(1, 3))
    assert "packed" in kernels.supports(q[0], k[0], v[0])
    assert "int64" in kernels.supports(q, k, v, None, None, spans.long(), None)
    assert "shapes" in kernels.supports(q, k, v[:, :4])
    table, bias = torch.zeros(9, 16, device=device), torch.zeros(1, 9, 9, device=device)
    places = torch.zeros(9, dtype=torch.int32, device=device)
    placed = {"cos": table, "sin": table, "bias": bias, "q_places": places}
    assert kernels.supports(q, k, v, **placed) is None
    assert "cos is torch.float16" in kernels.supports(q, k, v, **placed | {"cos": table.half()})
    assert "sin belong together" in kernels.supports(q, k, v, **placed | {"sin": table[:, :9]})
    assert "sin belong together" in kernels.supports(q, k, v, **placed | {"sin": None})
    assert "bias is torch.float32 [9, 9]" in kernels.supports(q, k, v, **placed | {"bias": bias[0]})
    assert "q_places is torch.int64" in kernels.supports(q, k, v, **placed | {"q_places": places.long()})
