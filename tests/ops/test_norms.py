from __future__ import annotations

import pytest
import torch
from torch import library

from imagen_fast import native
from imagen_fast.ops.cpu import norm as cpu
from imagen_fast.ops.layer_norm import layer_norm
from imagen_fast.ops.rms_norm import rms_norm


def plain_layer_norm(x, weight, bias, eps):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def plain_rms_norm(x, weight, eps):
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


OURS = {"layer": layer_norm, "rms": rms_norm}
PLAIN = {"layer": plain_layer_norm, "rms": plain_rms_norm}
PARAMETERS = {"layer": ("weight", "bias"), "rms": ("weight",)}
EPS = 1e-6


def outcome(function, inputs, dtype, d_y):
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    y = function(*leaves, EPS)
    return [y.detach(), *torch.autograd.grad(y, leaves, d_y.to(dtype))]


def through_float32(norm):
    """What autocast computes."""

    def function(x, *parameters_and_eps):
        *parameters, eps = parameters_and_eps
        return PLAIN[norm](x.float(), *(p.float() for p in parameters), eps).to(x.dtype)

    return function


def case(norm, shape, dtype):
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=draw) * 3 + 1).to(dtype)
    parameters = [torch.randn(shape[-1], generator=draw).to(dtype) for _ in PARAMETERS[norm]]
    return [x, *parameters], torch.randn(shape, generator=draw).to(dtype)


def check(norm, shape, dtype, error_bound):
    inputs, d_y = case(norm, shape, dtype)
    exact = outcome(PLAIN[norm], inputs, torch.float64, d_y)
    peer = outcome(through_float32(norm), inputs, dtype, d_y)
    ours = outcome(OURS[norm], inputs, dtype, d_y)
    names = ("y", "dx", *(f"d{name}" for name in PARAMETERS[norm]))
    for name, a, e, p in zip(names, ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


# 3,000 rows are what a batch of 16 images gives, and no whole number of blocks; then one row, and widths that
# fill no register: less than one, and one and a rest.
SHAPES = [(3000, 64), (1, 33), (67, 7), (2, 5, 384), (0, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", OURS)
def test_bf16_is_within_the_error_bound(norm, shape, instruction_set, error_bound, poisoned_memory):
    check(norm, shape, torch.bfloat16, error_bound)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_layer_norm_is_within_the_error_bound_without_our_kernel(
    shape, dtype, error_bound, poisoned_memory, monkeypatch
):
    monkeypatch.setattr(cpu, "_UNAVAILABLE", "left out for this test")
    check("layer", shape, dtype, error_bound)


def test_rms_norm_is_pytorchs_own_without_our_kernel(monkeypatch):
    monkeypatch.setattr(cpu, "_UNAVAILABLE", "left out for this test")
    (x, weight), _ = case("rms", (3, 16), torch.bfloat16)
    assert torch.equal(rms_norm(x, weight, EPS), plain_rms_norm(x, weight, EPS))


@pytest.mark.parametrize("norm", OURS)
def test_float32_is_pytorchs_own(norm):
    inputs, _ = case(norm, (7, 16), torch.float32)
    assert torch.equal(OURS[norm](*inputs, EPS), PLAIN[norm](*inputs, EPS))


@pytest.mark.parametrize("norm", OURS)
def test_strided_rows_and_gradients(norm):
    (x, *parameters), d_y = case(norm, (6, 40), torch.bfloat16)
    dense = outcome(OURS[norm], (x, *parameters), torch.bfloat16, d_y)
    leaves = [x.t().contiguous().t(), *(torch.stack((p, p), 1)[:, 0] for p in parameters)]
    strided = outcome(OURS[norm], leaves, torch.bfloat16, d_y.t().contiguous().t())
    assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True))


@pytest.mark.parametrize("norm", OURS)
def test_the_number_of_threads_changes_no_bit(norm):
    inputs, d_y = case(norm, (1000, 48), torch.bfloat16)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(outcome(OURS[norm], inputs, torch.bfloat16, d_y))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("norm", OURS)
def test_opcheck_and_one_graph(norm):
    if not native.available():
        pytest.skip("the native module was not built")
    inputs, _ = case(norm, (2, 3, 16), torch.bfloat16)
    x, weight, *bias = inputs = [x.requires_grad_() for x in inputs]
    library.opcheck(torch.ops.imagen_fast.norm_cpu, (x, weight, bias[0] if bias else None, EPS))
    compiled = torch.compile(OURS[norm], fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs, EPS), OURS[norm](*inputs, EPS))
