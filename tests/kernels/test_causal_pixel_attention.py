"""Causal pixel attention against its definition, in float64."""

from collections import Counter
from itertools import product

import pytest
import torch
from causal_windows import attention, visible, windows, with_gradients
from torch import library

from imagen_fast.kernels import causal_pixel_attention as kernels
from imagen_fast.kernels import launch
from imagen_fast.kernels.causal_pixel_attention_launch import leading_tiles
from imagen_fast.kernels.causal_pixel_attention_shapes import sides
from imagen_fast.kernels.causal_pixel_window import pairs, simplest

op = kernels.causal_pixel_attention
NAMES = ("out", "dq", "dk", "dv")


def fused(grid, target, images=1, heads=1, width=32):
    device, dtype = target
    torch.manual_seed(grid[0] * grid[1] + width)
    return torch.randn(images, grid[0] * grid[1], 3, heads, width).to(device, dtype).unbind(2)


def compare(error_bound, window, q, k, v) -> None:
    scale, seen, d_out = q.shape[-1] ** -0.5, visible(*window), torch.randn_like(q.contiguous())
    exact, same = (
        with_gradients(lambda *x: attention(*x, seen, scale), (q, k, v), d_out, dtype)
        for dtype in (torch.float64, q.dtype)
    )
    leaves = tuple(x.detach().requires_grad_() for x in (q, k, v))  # in the caller's strides
    out = op(*leaves, *window, scale)
    ours = (out, *torch.autograd.grad(out, leaves, d_out))
    for name, *values in zip(NAMES, ours, exact, same, strict=True):
        error_bound(*values, name)


# A whole tile, ragged ones both ways, prime sides, one pixel, one line, one column.
@pytest.mark.parametrize("name", windows(1, 1))
@pytest.mark.parametrize("grid", [(1, 1), (11, 13), (1, 37), (37, 1), (3, 21)])
@pytest.mark.parametrize("some", [False, True], ids=["no prefix", "prefix"])
def test_contexts(error_bound, target, grid, name, some) -> None:
    prefix = 2 * grid[0] * grid[1] // 5 if some else 0
    compare(error_bound, windows(*grid, prefix)[name], *fused(grid, target))


@pytest.mark.parametrize("width", [1, 20, 64, 72, 128])
def test_widths(error_bound, target, width) -> None:
    compare(error_bound, windows(9, 10)["quadrant"], *fused((9, 10), target, 2, 2, width))


@pytest.mark.skipif(not launch.INSTALLED, reason="needs triton")
def test_tiles_that_nobody_sees_are_not_loaded(target) -> None:
    """NaN in the lower half and the right half changes no bit of what the upper left quarter gets."""
    grid = (16, 32)
    window = windows(*grid)["quadrant"]
    q, k, v = fused(grid, target)
    quarter = torch.zeros(grid, dtype=torch.bool, device=q.device)
    quarter[:8, :16] = True
    quarter = quarter.flatten()
    poisoned = [x.clone() for x in (k, v)]
    for x in poisoned:
        x[:, ~quarter] = torch.nan
    clean, ours = op(q, k, v, *window, 0.2), op(q, *poisoned, *window, 0.2)
    assert torch.equal(clean[:, quarter], ours[:, quarter])


def test_gradients_repeat(target) -> None:
    tensors, window = fused((9, 10), target), windows(9, 10, 13)["3 raster"]
    d_out = torch.randn_like(tensors[0].contiguous())
    runs = [with_gradients(lambda *x: op(*x, *window, 0.2), tensors, d_out, target[1]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_pairs_are_those_of_the_mask() -> None:
    for grid, prefix in product([(1, 1), (5, 7), (1, 9), (9, 1), (6, 6)], (0, 1)):
        for window in windows(*grid, prefix).values():
            assert pairs(*window) == visible(*window).sum() == pairs(*simplest(*window))
            assert torch.equal(visible(*window), visible(*simplest(*window)))


@pytest.mark.skipif(not launch.INTERPRETED, reason="the walk is a device function: the interpreter shows it")
def test_each_tile_that_is_seen_is_met_once() -> None:
    from walks import met_by_keys, met_by_queries

    for grid, prefix in product([(9, 10), (13, 6), (1, 40)], (0, 1, 17)):
        for window in windows(*grid, prefix).values():
            window = simplest(*window)
            (q_tall, q_wide), (k_tall, k_wide) = sides(window, 8), sides(window, 4)
            seen = visible(*window).nonzero().tolist()
            across = window.width
            wanted = {
                ((i // across // q_tall, i % across // q_wide), (n // across // k_tall, n % across // k_wide))
                for i, n in seen
            }
            leading = leading_tiles(window, k_tall, k_wide)
            tile_sides = (q_tall, q_wide, k_tall, k_wide)
            assert met_by_queries(window, leading, tile_sides) == Counter(wanted)
            assert met_by_keys(window, tile_sides) == Counter(wanted)


def test_no_image_and_no_pixel(device) -> None:
    for images, grid in ((0, (2, 2)), (2, (0, 3)), (2, (3, 0))):
        q, k, v = (
            torch.randn(images, grid[0] * grid[1], 2, 32, device=device, requires_grad=True) for _ in range(3)
        )
        out = op(q, k, v, *windows(*grid)["quadrant"], 0.3)
        assert all(x.shape == q.shape for x in (out, *torch.autograd.grad(out.sum(), (q, k, v))))


def test_op_obeys_the_rules_of_its_registration(device) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    leaves = tuple(x.detach().requires_grad_() for x in fused((3, 3), (device, torch.float32)))
    arguments = (*leaves, *windows(3, 3)["1"], 0.3)
    library.opcheck(torch.ops.imagen_fast.causal_pixel_attention_triton, arguments, test_utils=tests)


def test_operations_are_counted(device) -> None:
    leaves = tuple(x.detach().requires_grad_() for x in fused((3, 3), (device, torch.float32), 2, 3))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        op(*leaves, *windows(3, 3)["quadrant"], 0.3).sum().backward()
    assert counter.get_total_flops() == 14 * 2 * 3 * 32 * 36


def test_refusals_say_why(device) -> None:
    q, k, v = fused((3, 3), (device, torch.float32))
    window = windows(3, 3)["quadrant"]
    assert kernels.supports(q, k, v, *window) is None
    assert "float64" in kernels.supports(q.double(), k.double(), v.double(), *window)
    assert "for the 2x3 pixels" in kernels.supports(q, k, v, 2, *window[1:])
    assert "head width is 160" in kernels.supports(*(torch.zeros(1, 9, 1, 160, device=device),) * 3, *window)
    assert "stride" in kernels.supports(*(torch.zeros(1, 9, 32, 2, device=device).mT,) * 3, *window)
