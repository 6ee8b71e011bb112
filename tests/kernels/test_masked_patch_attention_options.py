"""The rotary embedding and the bias of masked-patch attention, against their definition in float64."""

import pytest
import torch
from attention_sides import (
    Placed,
    compare,
    drawn,
    every,
    fused,
    gradients,
    listed,
    op,
    packed,
    shown,
    sided,
    with_places,
)
from torch import Tensor

from imagen_fast import ops
from imagen_fast.errors import ImagenFastError
from imagen_fast.kernels import masked_patch_attention_launch as launchers


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
