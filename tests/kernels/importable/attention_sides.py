"""Rows of images, the definition of attention among them in plain PyTorch, and a kernel held against it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagen_fast.kernels import masked_patch_attention as _registered  # noqa: F401

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
