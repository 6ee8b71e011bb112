from __future__ import annotations

import pytest
import torch

from imagen_fast.ops import linear as module
from imagen_fast.ops.linear import linear


def outcome(function, inputs, dtype, d_y):
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, d_y.to(dtype))]


@pytest.mark.parametrize("shape", [(2, 3, 16, 24), (7, 33, 5), (1, 8, 8)], ids=str)
def test_bf16_is_within_the_error_bound(shape, error_bound, poisoned_memory):
    *rows, width, outputs = shape
    draw = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(s, generator=draw).bfloat16() for s in ((*rows, width), (outputs, width), (outputs,))
    ]
    d_y = torch.randn(*rows, outputs, generator=draw).bfloat16()
    exact = outcome(torch.nn.functional.linear, inputs, torch.float64, d_y)
    peer = outcome(torch.nn.functional.linear, inputs, torch.bfloat16, d_y)
    ours = outcome(linear, inputs, torch.bfloat16, d_y)
    for name, a, e, p in zip(("y", "dx", "dweight", "dbias"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


def test_only_what_is_asked_for_gets_a_gradient():
    x, weight, bias = torch.randn(4, 8).bfloat16(), torch.randn(6, 8).bfloat16(), torch.randn(6).bfloat16()
    bias.requires_grad_()
    linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    assert torch.equal(bias.grad, torch.full((6,), 4.0).bfloat16())


def test_other_cases_are_pytorchs_own(monkeypatch):
    x, weight, bias = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6)
    monkeypatch.setattr(module._Linear, "apply", None)  # calling it would raise
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    empty = torch.randn(0, 8).bfloat16()
    assert linear(empty, weight.bfloat16(), bias.bfloat16()).shape == (0, 6)


def test_compiles_in_one_graph():
    x, weight, bias = torch.randn(4, 8).bfloat16(), torch.randn(6, 8).bfloat16(), torch.randn(6).bfloat16()
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight, bias), linear(x, weight, bias))
