from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.ops.cpu import layer_norm as cpu
from imagen_fast.ops.layer_norm import layer_norm


@pytest.fixture(params=["native", "pytorch"])
def way(request, monkeypatch):
    if request.param == "pytorch":
        monkeypatch.setattr(cpu, "_UNAVAILABLE", "left out for this test")
    elif not native.available():
        pytest.skip("the native module was not built")
    return request.param


def outcome(function, inputs, dtype, d_y):
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    y = function(*leaves, 1e-6)
    return [y.detach(), *torch.autograd.grad(y, leaves, d_y.to(dtype))]


def wide(x, weight, bias, eps):
    """The same through float32: what autocast computes."""
    y = torch.nn.functional.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps)
    return y.to(x.dtype)


# 3,000 rows are what a batch of 16 images gives; 1 and 33 are one row, and an odd width.
@pytest.mark.parametrize("shape", [(3000, 64), (1, 33), (2, 5, 384), (0, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_are_within_the_error_bound(shape, dtype, way, error_bound, poisoned_memory):
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=draw) * 3 + 1).to(dtype)
    weight, bias = (torch.randn(shape[-1], generator=draw).to(dtype) for _ in range(2))
    d_y = torch.randn(shape, generator=draw).to(dtype)
    exact = outcome(
        lambda a, w, b, eps: torch.nn.functional.layer_norm(a, a.shape[-1:], w, b, eps),
        (x, weight, bias),
        torch.float64,
        d_y,
    )
    peer = outcome(wide, (x, weight, bias), dtype, d_y)
    ours = outcome(layer_norm, (x, weight, bias), dtype, d_y)
    for name, a, e, p in zip(("y", "dx", "dweight", "dbias"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


def test_the_number_of_threads_changes_no_bit():
    x, d_y = torch.randn(2, 1000, 48).bfloat16()
    weight, bias = torch.randn(2, 48).bfloat16()
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(outcome(layer_norm, (x, weight, bias), torch.bfloat16, d_y))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_float32_is_pytorchs_own():
    x, weight, bias = torch.randn(7, 16), torch.randn(16), torch.randn(16)
    assert torch.equal(
        layer_norm(x, weight, bias, 1e-6), torch.nn.functional.layer_norm(x, (16,), weight, bias, 1e-6)
    )


def test_opcheck_and_one_graph():
    if not native.available():
        pytest.skip("the native module was not built")
    x, weight, bias = (
        t.bfloat16().requires_grad_() for t in (torch.randn(2, 3, 16), torch.randn(16), torch.randn(16))
    )
    torch.library.opcheck(torch.ops.imagen_fast.layer_norm_cpu, (x, weight, bias, 1e-6))
    compiled = torch.compile(layer_norm, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, weight, bias, 1e-6), layer_norm(x, weight, bias, 1e-6))
