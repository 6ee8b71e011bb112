from __future__ import annotations

import pytest
import torch
from torch import library

from imagen_fast import native
from imagen_fast.ops.quick_gelu import quick_gelu


def plain(x):
    return x * torch.sigmoid(1.702 * x)


def through_float32(x):
    return plain(x.float()).to(x.dtype)


def outcome(function, x, dtype, d_y):
    leaf = x.detach().to(dtype).requires_grad_()
    y = function(leaf)
    return [y.detach(), *torch.autograd.grad(y, leaf, d_y.to(dtype))]


def case(shape):
    draw = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(shape, generator=draw)).bfloat16() for scale in (3.0, 1.0)]


# More than a thread's block, then what fills no register: less than one, and one and a rest.
@pytest.mark.parametrize("shape", [(3, 5000), (1, 7), (2, 3, 11), (0, 16), ()], ids=str)
def test_bf16_is_within_the_error_bound(shape, instruction_set, error_bound, poisoned_memory):
    x, d_y = case(shape)
    exact = outcome(plain, x, torch.float64, d_y)
    peer = outcome(through_float32, x, torch.bfloat16, d_y)
    ours = outcome(quick_gelu, x, torch.bfloat16, d_y)
    for name, a, e, p in zip(("y", "dx"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


def test_every_bf16_number(instruction_set):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    y, d_x = outcome(quick_gelu, x, torch.bfloat16, torch.ones_like(x))
    assert torch.equal(y.isnan(), x.isnan())
    finite = x.isfinite()
    exact, exact_d = outcome(plain, x[finite], torch.float64, torch.ones_like(x[finite]))
    # Half a unit in the last place and a little; below the smallest normal number of float32, anything.
    torch.testing.assert_close(y[finite].double(), exact, rtol=0.51 * 2**-7, atol=1e-34)
    # The slope passes through zero, and there is as exact as its terms are.
    torch.testing.assert_close(d_x[finite].double(), exact_d, rtol=0.51 * 2**-7, atol=1e-5)


def test_other_types_are_plain_pytorch():
    x = torch.randn(7, 16)
    assert torch.equal(quick_gelu(x), plain(x))


def test_strided():
    x, d_y = case((6, 40))
    strided = outcome(quick_gelu, x.t(), torch.bfloat16, d_y.t())
    dense = outcome(quick_gelu, x, torch.bfloat16, d_y)
    assert all(torch.equal(a.t(), b) for a, b in zip(strided, dense, strict=True))


def test_opcheck_and_one_graph():
    if not native.available():
        pytest.skip("the native module was not built")
    x = torch.randn(2, 3, 16).bfloat16().requires_grad_()
    library.opcheck(torch.ops.imagen_fast.quick_gelu_cpu, (x,))
    compiled = torch.compile(quick_gelu, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), quick_gelu(x))
