"""What only a GPU can show of the causal kernels: real grids, sizes past 32 bits, no wait for the device."""

import pytest
import torch
from causal_windows import attention, softmax, visible, windows, with_gradients
from torch import Tensor

from imagen_fast.kernels import causal_pixel_attention, causal_pixel_softmax, launch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(launch.INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device"),
]

op = causal_pixel_attention.causal_pixel_attention
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def fused(images: int, grid: tuple[int, int], heads: int, width: int, dtype: torch.dtype) -> tuple:
    torch.manual_seed(width)
    qkv = torch.randn(images, grid[0] * grid[1], 3, heads, width, device="cuda", dtype=dtype)
    return tuple(x.detach().requires_grad_() for x in qkv.unbind(2))


def compare(error_bound, window, tensors: tuple[Tensor, ...]) -> None:
    seen, scale = visible(*window).cuda(), tensors[0].shape[-1] ** -0.5
    d_out = torch.randn_like(tensors[0].contiguous())
    exact, same = (
        with_gradients(lambda *x: attention(*x, seen, scale), tensors, d_out, dtype)
        for dtype in (torch.float64, tensors[0].dtype)
    )
    out = op(*tensors, *window, scale)
    ours = (out, *torch.autograd.grad(out, tensors, d_out))
    for name, *values in zip(("out", "dq", "dk", "dv"), ours, exact, same, strict=True):
        error_bound(*values, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [32, 64, 72, 80, 96, 128])
@pytest.mark.parametrize("name", ["raster", "quadrant", "3", "3 raster"])
@pytest.mark.parametrize("prefix", [0, 75])
def test_every_block_shape(error_bound, prefix, name, width, dtype) -> None:
    compare(error_bound, windows(20, 33, prefix)[name], fused(2, (20, 33), 2, width, dtype))


@pytest.mark.parametrize("name", ["raster", "quadrant", "3 raster"])
def test_large_grid(error_bound, name) -> None:
    compare(error_bound, windows(64, 64)[name], fused(1, (64, 64), 1, 64, torch.bfloat16))


def test_more_heads_than_a_grid_dimension_holds(error_bound) -> None:
    compare(error_bound, windows(2, 2)["quadrant"], fused(8192, (2, 2), 12, 32, torch.bfloat16))


def test_offsets_past_32_bits() -> None:
    """A fused qkv of 2.4e9 elements: the last images agree with a copy of their own."""
    if torch.cuda.get_device_properties(0).total_memory < 30 * 2**30:
        pytest.skip("needs 30 GB of GPU memory")
    images, heads, width, window = 1360, 24, 128, windows(14, 14)["quadrant"]
    qkv = torch.zeros(images, 196, 3, heads, width, device="cuda", dtype=torch.bfloat16)
    assert qkv.numel() > 2**31
    qkv[-2:].normal_()
    d_out = torch.zeros(images, 196, heads, width, device="cuda", dtype=torch.bfloat16)
    d_out[-2:].normal_()

    def run(qkv: Tensor, d_out: Tensor) -> tuple[Tensor, ...]:
        leaves = tuple(x.detach().requires_grad_() for x in qkv.unbind(2))
        out = op(*leaves, *window, 0.1)
        return out, *torch.autograd.grad(out, leaves, d_out)

    for far, near in zip(run(qkv, d_out), run(qkv[-2:].clone(), d_out[-2:].clone()), strict=True):
        assert torch.equal(far[-2:], near)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [(32, 32), (64, 64), (96, 96)])
def test_softmax_of_every_tile(error_bound, grid, dtype) -> None:
    window = windows(*grid, 70)["quadrant"]
    seen, pixels = visible(*window).cuda(), grid[0] * grid[1]
    scores, d_p = torch.randn(2, 1, pixels, pixels, device="cuda", dtype=dtype)
    exact, same = (
        with_gradients(lambda x: softmax(x, seen), (scores,), d_p, wide) for wide in (torch.float64, dtype)
    )
    ours = with_gradients(
        lambda x: causal_pixel_softmax.causal_pixel_softmax(x, *window), (scores,), d_p, dtype
    )
    for name, *values in zip(("p", "gradient"), ours, exact, same, strict=True):
        error_bound(*values, name)


def test_no_wait_for_the_device_and_one_graph() -> None:
    tensors, window = fused(2, (9, 10), 2, 64, torch.bfloat16), windows(9, 10)["quadrant"]

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op(q * 2, k, v, *window, 0.125)

    eager, compiled = step(*tensors), torch.compile(step, fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), eager)
    step(*tensors).sum().backward()  # compiling may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*tensors).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
