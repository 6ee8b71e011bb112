"""Masked-patch attention against its definition, image by image, in float64."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from imagen_fast import ops
from imagen_fast.errors import ImagenFastError
from imagen_fast.kernels import masked_patch_attention as kernels
from imagen_fast.kernels import masked_patch_attention_launch as launchers

op = torch.ops.imagen_fast.masked_patch_attention_triton


@dataclass
class Side:
    """Which rows of a tensor belong to each image, and the tables that say so."""

    rows: list[Tensor]  # for each image, indices into [N] or [T]
    spans: Tensor | None
    index: Tensor | None
    longest: int
    places: Tensor | None = None  # where on the grid each row lies; a row's number where not given

    def places_of(self, rows: Tensor) -> Tensor:
        return rows if self.places is None else self.places.to(rows.device)[rows].long()


@dataclass
class Placed:
    """What depends on the places: a rotary embedding, [P, D/2] each, and a bias [H, P, P']."""

    cos: Tensor | None = None
    sin: Tensor | None = None
    bias: Tensor | None = None


NOTHING = Placed()


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


def turned(x: Tensor, placed: Placed, places: Tensor) -> Tensor:
    """Rows [n, H, D] as complex numbers, multiplied by cos + i sin."""
    if placed.cos is None:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (table.to(wide)[places][:, None] for table in (placed.cos, placed.sin))
    z = torch.complex(*x.to(wide).chunk(2, -1)) * torch.complex(cos, sin)
    return torch.cat([z.real, z.imag], -1).to(x.dtype)


def definition(
    q: Tensor, k: Tensor, v: Tensor, q_side: Side, k_side: Side, scale: float, placed: Placed
) -> Tensor:
    out = q * 0  # a part of the graph even where no image has a row
    for image, (rows, keys) in enumerate(zip(q_side.rows, k_side.rows, strict=True)):
        if not (len(rows) and len(keys)):
            continue
        rows, keys = rows.to(q.device), keys.to(q.device)
        to = (rows,) if q.ndim == 3 else (torch.full_like(rows, image), rows)
        of = (keys,) if k.ndim == 3 else (torch.full_like(keys, image), keys)
        row_places, key_places = q_side.places_of(rows), k_side.places_of(keys)
        q_turned, k_turned = turned(q[to], placed, row_places), turned(k[of], placed, key_places)
        s = torch.einsum("mhd,nhd->hmn", q_turned, k_turned) * scale
        if placed.bias is not None:
            s = s + placed.bias[:, row_places[:, None], key_places]
        out = out.index_put(to, torch.einsum("hmn,nhd->mhd", s.softmax(-1).to(v.dtype), v[of]))
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


def rounded(x: Tensor) -> Tensor:
    """Multiples of a quarter, in the same strides."""
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return made.copy_((4 * x).round() / 4)


def sided(q: Tensor, q_side: Side, k_side: Side, scale: float, placed: Placed = NOTHING) -> tuple:
    tables = q_side.spans, q_side.index, k_side.spans, k_side.index
    looked_up = placed.cos, placed.sin, placed.bias, q_side.places, k_side.places
    to_device = (None if table is None else table.to(q.device) for table in (*tables, *looked_up))
    tables = [next(to_device) for _ in tables]
    return *tables, q_side.longest, k_side.longest, scale, *to_device


def gradients(out: Tensor, inputs: tuple[Tensor, ...], d_out: Tensor) -> tuple[Tensor, ...]:
    return out, *torch.autograd.grad(out, inputs, d_out, materialize_grads=True)


def compare(
    error_bound: Callable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_side: Side,
    k_side: Side,
    placed: Placed = NOTHING,
) -> None:
    """Forward and all gradients, with poison wherever the kernel has no business."""
    scale = q.shape[-1] ** -0.5
    d_out = torch.randn_like(q.contiguous())
    if placed.bias is not None:
        # One entry of its gradient is p (dp - delta) of one pair, whose parts come of different kernels. The
        # interpreter sums a product in another order for each shape of tile: with few bits any is exact.
        q, k, v, d_out = (rounded(x) for x in (q, k, v, d_out))

    def leaves(*tensors: Tensor) -> tuple[tuple[Tensor, ...], Placed]:
        made = tuple(x.detach().requires_grad_() for x in tensors)
        if placed.bias is None:
            return made, placed
        bias = placed.bias.detach().to(torch.promote_types(placed.bias.dtype, made[0].dtype))
        bias.requires_grad_()
        return (*made, bias), replace(placed, bias=bias)

    def plain(dtype: torch.dtype) -> tuple[Tensor, ...]:
        x, own = leaves(*(x.to(dtype) for x in (q, k, v)))
        return gradients(definition(*x[:3], q_side, k_side, scale, own), x, d_out.to(dtype))

    x, own = leaves(poisoned_like(q, q_side), poisoned_like(k, k_side), poisoned_like(v, k_side))
    out = op(*x[:3], *sided(q, q_side, k_side, scale, own))
    ours = gradients(out, x, poison(d_out, q_side))
    assert out.is_contiguous()
    names = ("out", "dq", "dk", "dv", "d_bias")[: len(ours)]
    for name, *values in zip(names, ours, plain(torch.float64), plain(q.dtype), strict=True):
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


def with_places(side: Side, grid: int, seed: int) -> Side:
    """Rows of a packed tensor at places of their own, those of an image in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    places = [torch.randperm(grid, generator=generator)[: len(rows)].sort().values for rows in side.rows]
    total = max((int(rows.max()) + 1 for rows in side.rows if len(rows)), default=0)
    side.places = torch.full((total,), 2**30, dtype=torch.int32)  # rows of nobody: never followed
    for rows, own in zip(side.rows, places, strict=True):
        side.places[rows] = own.int()
    return side


def drawn(options: str, heads: int, q_grid: int, k_grid: int, width: int, target: tuple) -> Placed:
    """Any angles where there is no bias, quarter turns beside one: see `compare`."""
    device, dtype = target
    torch.manual_seed(q_grid * k_grid)
    places, placed = max(q_grid, k_grid), Placed()
    if "bias" in options:
        placed.bias = torch.randn(heads, q_grid, k_grid).to(device, dtype)
    if "rotary" in options:
        turns = torch.rand(places, width // 2, device=device)
        if "bias" in options:
            turns = (4 * turns).floor() / 4
        placed.cos, placed.sin = ((2 * torch.pi * turns).cos(), (2 * torch.pi * turns).sin())
        if "bias" in options:
            placed.cos, placed.sin = placed.cos.round(), placed.sin.round()
    return placed


# A short row, a whole row at once and in parts, a long one; widths that fill no tile.
@pytest.mark.parametrize("options", ["rotary", "bias", "rotary and bias"])
@pytest.mark.parametrize(
    ("images", "rows", "heads", "width"), [(3, 5, 3, 32), (2, 17, 1, 20), (1, 70, 2, 72), (1, 271, 1, 16)]
)
def test_options_where_every_patch_sees_every_patch(
    error_bound, target, images, rows, heads, width, options
) -> None:
    q, k, v = fused(images, rows, heads, width, target)
    side, placed = every(images, rows), drawn(options, heads, rows, rows, width, target)
    compare(error_bound, q, k, v, side, side, placed)


@pytest.mark.parametrize("patches", [16, 70])
def test_options_in_place(error_bound, target, patches) -> None:
    """Hidden queries at visible keys, on a grid with a few places more than there are patches."""
    visible, hidden = shown(3, patches)
    q, k, v = fused(3, patches, 2, 32, target)
    placed = drawn("rotary and bias", 2, patches + 3, patches + 5, 32, target)
    compare(error_bound, q, k, v, listed(hidden), listed(visible), placed)


@pytest.mark.parametrize("counts", [[5, 0, 17, 1], [0, 0], [3, 80, 2]])
@pytest.mark.parametrize("gap", [0, 3])
def test_options_of_packed_rows(error_bound, target, counts, gap) -> None:
    side = with_places(packed(counts, gap), 90, 0)
    q, k, v = (x[0] for x in fused(1, sum(counts) + gap * len(counts), 2, 32, target))
    if gap:
        q, k, v = (x[: len(side.places)] for x in (q, k, v))
    compare(error_bound, q, k, v, side, side, drawn("rotary and bias", 2, 90, 90, 32, target))


def test_options_of_hidden_queries_at_packed_keys(error_bound, target) -> None:
    _, hidden = shown(3, 23)
    device, dtype = target
    q = torch.randn(3, 23, 2, 48).to(device, dtype)
    k, v = torch.randn(2, 20, 2, 48).to(device, dtype)
    keys = with_places(packed([11, 9, 0]), 23, 1)
    compare(error_bound, q, k, v, listed(hidden), keys, drawn("rotary and bias", 2, 23, 23, 48, target))


def test_places_of_rows_on_a_grid(error_bound, target) -> None:
    """Queries that are the last rows of a grid say so."""
    q, k, v = fused(2, 9, 1, 32, target)
    side = every(2, 5)
    side.places = torch.arange(4, 9, dtype=torch.int32)
    compare(error_bound, q[:, 4:], k, v, side, every(2, 9), drawn("rotary and bias", 1, 9, 9, 32, target))


def test_bias_in_single_precision_beside_half(error_bound, device) -> None:
    q, k, v = fused(2, 17, 2, 32, (device, torch.float16))
    bias = torch.randn(2, 17, 17, device=device)
    compare(error_bound, q, k, v, every(2, 17), every(2, 17), Placed(bias=bias))


@pytest.mark.parametrize("programs", [1, 2, 1000])
def test_gradient_of_the_bias_does_not_depend_on_groups(error_bound, target, programs, monkeypatch) -> None:
    monkeypatch.setattr(launchers, "_BIAS_PROGRAMS", programs)
    q, k, v = fused(5, 9, 1, 32, target)
    compare(error_bound, q, k, v, every(5, 9), every(5, 9), drawn("bias", 1, 9, 9, 32, target))


def test_a_frozen_bias_gets_no_gradient(device) -> None:
    q, k, v = (x.detach().requires_grad_() for x in fused(1, 9, 1, 32, (device, torch.float32)))
    bias = torch.randn(1, 9, 9, device=device)
    arguments = sided(q, every(1, 9), every(1, 9), 0.3)[:7]
    kept = torch.autograd.grad(op(q, k, v, *arguments, None, None, bias).sum(), (q, k, v))
    bias.requires_grad_()
    learned = torch.autograd.grad(op(q, k, v, *arguments, None, None, bias).sum(), (q, k, v, bias))
    assert all(torch.equal(a, b) for a, b in zip(kept, learned[:3], strict=True))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        op(q, k, v, *arguments, None, None, bias).sum().backward()
    assert counter.get_total_flops() == 18 * 9 * 9 * 32


@pytest.mark.parametrize("width", [32, 80])
def test_the_public_operation_turns_tokens_before_a_kernel_that_cannot(error_bound, target, width) -> None:
    """Past a width of 64, where a bias is refused."""
    q, k, v = fused(2, 9, 2, width, target)
    context = ops.Visible.in_place(torch.rand(2, 9, device=q.device) < 0.5)
    rotary = ops.Rotary.axial((3, 3), width, prefix=0, device=q.device)
    bias = torch.randn(2, 9, 9, device=q.device) if width <= 64 else None

    def run(backend: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        x = tuple(x.detach().to(dtype).requires_grad_() for x in (q, k, v))
        out = ops.masked_patch_attention(*x, context, rotary=rotary, bias=bias, backend=backend)
        return gradients(out, x, torch.ones_like(out))

    runs = run("triton", q.dtype), run("reference", torch.float64), run("reference", q.dtype)
    for name, *values in zip(("out", "dq", "dk", "dv"), *runs, strict=True):
        error_bound(*values, name)
    if width > 64:
        bias = torch.zeros(2, 9, 9, device=q.device)
        with pytest.raises(ImagenFastError, match="head width is 80: with cos and sin, or a bias, 1 to 64"):
            run("triton", q.dtype)


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
    torch.library.opcheck(op, (q, k, v, *sided(q, every(2, 9), every(2, 9), 0.3)), test_utils=tests)
    torch.library.opcheck(op, (q, k, v, *sided(q, listed(hidden), listed(visible), 0.3)), test_utils=tests)
    placed = drawn("rotary and bias", 1, 9, 9, 16, (device, torch.float32))
    placed.bias.requires_grad_()
    arguments = sided(q, listed(hidden), listed(visible), 0.3, placed)
    torch.library.opcheck(op, (q, k, v, *arguments), test_utils=tests)
    backward = torch.ops.imagen_fast.masked_patch_attention_backward_triton
    tensors = [x.detach() for x in (q, q, k, v)]
    placed.bias.requires_grad_(False)
    for wanted in (False, True):
        torch.library.opcheck(
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
