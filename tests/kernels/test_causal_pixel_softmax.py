"""The causal softmax against its definition, in float64."""

import pytest
import torch
from causal_windows import softmax, visible, windows, with_gradients
from torch import library

from imagen_fast.kernels import causal_pixel_softmax as kernels

op = torch.ops.imagen_fast.causal_pixel_softmax_triton


def compare(error_bound, window, target, turned=False) -> None:
    """With NaN where nobody looks."""
    device, dtype = target
    seen, pixels = visible(*window).to(device), window[0] * window[1]
    torch.manual_seed(pixels)
    scores, d_p = torch.randn(2, 3, pixels, pixels).to(device, dtype)
    if turned:
        scores, d_p = scores.transpose(1, 2), d_p.mT
    exact, same = (
        with_gradients(lambda x: softmax(x, seen), (scores,), d_p, wide) for wide in (torch.float64, dtype)
    )
    leaf = torch.where(seen, scores, torch.nan)
    if turned:
        leaf = leaf.mT.contiguous().mT
    leaf = leaf.detach().requires_grad_()
    p = op(leaf, *window)
    (gradient,) = torch.autograd.grad(p, leaf, torch.where(seen, d_p, torch.nan))
    error_bound(p, exact[0], same[0], "p")
    error_bound(gradient, exact[1], same[1], "gradient")
    assert not p[:, ~seen].any()
    assert not gradient[:, ~seen].any()


@pytest.mark.parametrize("name", windows(1, 1))
@pytest.mark.parametrize("grid", [(1, 1), (5, 7), (1, 19), (19, 1)])
@pytest.mark.parametrize("some", [False, True], ids=["no prefix", "prefix"])
def test_contexts(error_bound, target, grid, name, some) -> None:
    compare(error_bound, windows(*grid, 2 * grid[0] * grid[1] // 5 if some else 0)[name], target)


@pytest.mark.parametrize("name", ["raster", "3 raster"])
def test_strides(error_bound, target, name) -> None:
    compare(error_bound, windows(5, 6, 3)[name], target, turned=True)


@pytest.mark.parametrize("name", ["raster", "quadrant", "1 raster"])
def test_rows_read_in_tiles(error_bound, target, name, monkeypatch) -> None:
    """As those of more than 8192 keys are."""
    monkeypatch.setattr(kernels, "_WHOLE", 16)
    monkeypatch.setattr(kernels, "_TILE", 16)
    compare(error_bound, windows(4, 5, 3)[name], target)


def test_no_matrix_and_no_pixel(device) -> None:
    for count, grid in ((0, (2, 2)), (2, (0, 3))):
        scores = torch.randn(count, grid[0] * grid[1], grid[0] * grid[1], device=device, requires_grad=True)
        p = op(scores, *windows(*grid)["quadrant"])
        assert p.shape == torch.autograd.grad(p.sum(), scores)[0].shape == scores.shape


def test_op_obeys_the_rules_of_its_registration(device) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    leaf = torch.randn(2, 9, 9, device=device, requires_grad=True)
    library.opcheck(op, (leaf, *windows(3, 3)["1"]), test_utils=tests)


def test_refusals_say_why(device) -> None:
    scores, window = torch.zeros(2, 9, 9, device=device), windows(3, 3)["quadrant"]
    assert kernels.supports(scores, *window) is None
    assert "float64" in kernels.supports(scores.double(), *window)
    assert "[L, 6, 6]" in kernels.supports(scores, 2, *window[1:])
