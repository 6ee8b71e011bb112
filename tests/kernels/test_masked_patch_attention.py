"""Masked-patch attention against its definition, image by image, in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from imagen_fast.kernels import masked_patch_attention as kernels

op = torch.ops.imagen_fast.masked_patch_attention_triton


@dataclass
class Side:
    """Which rows of a tensor belong to each image, and the tables that say so."""

    rows: list[Tensor]  # for each image, indices into [N] or [T]
    spans: Tensor | None
    index: Tensor | None
    longest: int


def _table(rows: list[list[int]]) -> Tensor:
    """Lists as one rectangle; past a list's end the table holds what must never be followed."""
    longest = max(map(len, rows))
    return torch.tensor([row + [2**30] * (longest - len(row)) for row in rows], dtype=torch.int32)


def every(images: int, rows: int) -> Side:
    return Side([torch.arange(rows)] * images, None, None, rows)


def listed(rows: list[list[int]]) -> Side:
    spans = torch.tensor([[0, len(row)] for row in rows], dtype=torch.int32)
    longest = max(map(len, rows))
    return Side([torch.tensor(row, dtype=torch.long) for row in rows], spans, _table(rows), longest)


def packed(counts: list[int], gap: int = 0) -> Side:
    """Runs of rows, one after the other, with ``gap`` rows of nobody after each."""
    starts = [sum(counts[:i]) + gap * i for i in range(len(counts))]
    spans = torch.tensor(list(zip(starts, counts, strict=True)), dtype=torch.int32)
    rows = [torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
    return Side(rows, spans, None, max(counts))


def shown(images: int, patches: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Visible and hidden patches of each image, in shuffled order; the first image hides everything."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(patches, generator=generator).tolist() for _ in range(images)]
    counts = [0, *torch.randint(1, patches, (images - 1,), generator=generator).tolist()]
    visible = [order[:count] for order, count in zip(orders, counts, strict=True)]
    return visible, [order[count:] for order, count in zip(orders, counts, strict=True)]


def definition(q: Tensor, k: Tensor, v: Tensor, q_side: Side, k_side: Side, scale: float) -> Tensor:
    out = q * 0  # a part of the graph even where no image has a row
    for image, (rows, keys) in enumerate(zip(q_side.rows, k_side.rows, strict=True)):
        if not (len(rows) and len(keys)):
            continue
        rows, keys = rows.to(q.device), keys.to(q.device)
        to = (rows,) if q.ndim == 3 else (torch.full_like(rows, image), rows)
        of = (keys,) if k.ndim == 3 else (torch.full_like(keys, image), keys)
        p = (torch.einsum("mhd,nhd->hmn", q[to], k[of]) * scale).softmax(-1)
        out = out.index_put(to, torch.einsum("hmn,nhd->mhd", p, v[of]))
    return out


def poison(tensor: Tensor, side: Side) -> Tensor:
    """NaN and infinity in all rows that no image lists."""
    free = torch.ones(tensor.shape[:-2], dtype=torch.bool, device=tensor.device)
    for image, rows in enumerate(side.rows):
        free[rows if tensor.ndim == 3 else (image, rows)] = False
    tensor = tensor.clone()
    tensor[free] = torch.nan
    tensor[free, ..., ::2] = torch.inf
    return tensor


def poisoned_like(tensor: Tensor, side: Side) -> Tensor:
    """Poisoned, in the same strides."""
    poisoned = poison(tensor.detach(), side)
    if poisoned.isfinite().all():  # all rows are listed; copying would fail on a broadcast tensor
        return tensor.detach().requires_grad_()
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(poisoned).requires_grad_()


def sided(q: Tensor, q_side: Side, k_side: Side, scale: float) -> tuple:
    tables = q_side.spans, q_side.index, k_side.spans, k_side.index
    tables = (None if table is None else table.to(q.device) for table in tables)
    return *tables, q_side.longest, k_side.longest, scale


def gradients(out: Tensor, inputs: tuple[Tensor, ...], d_out: Tensor) -> tuple[Tensor, ...]:
    return out, *torch.autograd.grad(out, inputs, d_out, materialize_grads=True)


def compare(error_bound: Callable, q: Tensor, k: Tensor, v: Tensor, q_side: Side, k_side: Side) -> None:
    """Forward and all gradients, with poison wherever the kernel has no business."""
    scale = q.shape[-1] ** -0.5
    d_out = torch.randn_like(q.contiguous())

    def leaves(dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(x.detach().to(dtype).requires_grad_() for x in (q, k, v))

    exact, same = (
        gradients(definition(*x, q_side, k_side, scale), x, d_out.to(x[0].dtype))
        for x in (leaves(torch.float64), leaves(q.dtype))
    )
    seen = poisoned_like(q, q_side), poisoned_like(k, k_side), poisoned_like(v, k_side)
    out = op(*seen, *sided(q, q_side, k_side, scale))
    ours = gradients(out, seen, poison(d_out, q_side))
    assert out.is_contiguous()
    for name, *values in zip(("out", "dq", "dk", "dv"), ours, exact, same, strict=True):
        error_bound(*values, name)


def fused(images: int, rows: int, heads: int, width: int, target: tuple) -> tuple[Tensor, Tensor, Tensor]:
    device, dtype = target
    torch.manual_seed(images * rows + heads * width)
    return torch.randn(images, rows, 3, heads, width).to(device, dtype).unbind(2)


# One-tile, two-phase and long backward; odd, prime, one-row, and all widths we promise. The long ones are few
# and have one head: the interpreter takes a second for each.
@pytest.mark.parametrize(
    ("images", "rows", "heads", "width"),
    [
        (2, 1, 2, 32),
        (3, 5, 1, 64),
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

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        tensors = tuple(tensor.detach().requires_grad_() for tensor in tensors)
        return gradients(op(*tensors, *sided(q, side, side, 0.2)), tensors, d_out)

    clean, again = run(q, k, v), run(q, k, v)
    poisoned = run(*(poison(tensor, side) for tensor in (q, k, v)))
    for name, *values in zip(("out", "dq", "dk", "dv"), clean, again, poisoned, strict=True):
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
    torch.library.opcheck(op, (q, k, v, *sided(q, every(2, 9), every(2, 9), 0.3)), test_utils=tests)
    torch.library.opcheck(op, (q, k, v, *sided(q, listed(hidden), listed(visible), 0.3)), test_utils=tests)
    arguments = (
        q.detach(),
        q.detach(),
        k.detach(),
        v.detach(),
        *sided(q, listed(hidden), listed(visible), 0.3),
    )
    backward = torch.ops.imagen_fast.masked_patch_attention_backward_triton
    torch.library.opcheck(backward, arguments, test_utils=("test_schema", "test_faketensor"))


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
