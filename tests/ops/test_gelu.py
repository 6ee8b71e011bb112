from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import library, nn

from imagen_fast import native
from imagen_fast.ops import gelu as ops_gelu
from imagen_fast.ops import modules
from imagen_fast.ops.gelu import gelu, quick_gelu


class Kind(NamedTuple):
    ours: object
    plain: object
    quick: bool


KINDS = {
    "exact": Kind(gelu, nn.functional.gelu, False),
    "quick": Kind(quick_gelu, lambda x: x * torch.sigmoid(1.702 * x), True),
}


@pytest.fixture(autouse=True)
def _whatever_it_costs(monkeypatch):
    monkeypatch.setattr(ops_gelu, "LEAST", 0)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def outcome(function, x, dtype, d_y):
    leaf = x.detach().to(dtype).requires_grad_()
    y = function(leaf)
    return [y.detach(), *torch.autograd.grad(y, leaf, d_y.to(dtype))]


def case(shape):
    draw = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(shape, generator=draw)).bfloat16() for scale in (3.0, 1.0)]


# More than a thread's block, then what fills no register: less than one, and one and a rest.
@pytest.mark.parametrize("shape", [(3, 5000), (1, 7), (2, 3, 11), (0, 16), ()], ids=str)
def test_bf16_is_within_the_error_bound(kind, shape, instruction_set, error_bound, poisoned_memory):
    x, d_y = case(shape)
    exact = outcome(kind.plain, x, torch.float64, d_y)
    peer = outcome(lambda x: kind.plain(x.float()).to(x.dtype), x, torch.bfloat16, d_y)
    ours = outcome(kind.ours, x, torch.bfloat16, d_y)
    for name, a, e, p in zip(("y", "dx"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


def test_every_bf16_number(kind, instruction_set):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    y, d_x = outcome(kind.ours, x, torch.bfloat16, torch.ones_like(x))
    assert torch.equal(y.isnan(), x.isnan())
    finite = x.isfinite()
    exact, exact_d = outcome(kind.plain, x[finite], torch.float64, torch.ones_like(x[finite]))
    # PyTorch's exact GELU has no digits in its tail, not even in float64.
    if not kind.quick:
        exact = 0.5 * x[finite].double() * torch.special.erfc(-(0.5**0.5) * x[finite].double())
    # Half a unit in the last place and a little; below the smallest normal number of float32, anything.
    torch.testing.assert_close(y[finite].double(), exact, rtol=0.51 * 2**-7, atol=1e-34)
    # The slope passes through zero, and there is as exact as its terms are.
    torch.testing.assert_close(d_x[finite].double(), exact_d, rtol=0.51 * 2**-7, atol=1e-5)


def test_other_types_are_plain_pytorch(kind):
    x = torch.randn(7, 16)
    assert torch.equal(kind.ours(x), kind.plain(x))


def test_few_values_are_plain_pytorch(monkeypatch):
    x, _ = case((6, 40))
    monkeypatch.setattr(ops_gelu, "LEAST", x.numel() + 1)
    assert torch.equal(gelu(x), nn.functional.gelu(x))


def test_strided(kind):
    x, d_y = case((6, 40))
    strided = outcome(kind.ours, x.t(), torch.bfloat16, d_y.t())
    dense = outcome(kind.ours, x, torch.bfloat16, d_y)
    assert all(torch.equal(a.t(), b) for a, b in zip(strided, dense, strict=True))


def test_a_map_keeps_its_channels_last(kind):
    x = case((2, 8, 5, 5))[0].to(memory_format=torch.channels_last)
    assert kind.ours(x).is_contiguous(memory_format=torch.channels_last)


def test_the_module_honours_the_approximation():
    x, _ = case((6, 40))
    assert torch.equal(modules.GELU(approximate="tanh")(x), nn.GELU(approximate="tanh")(x))
    assert torch.equal(modules.GELU()(x), gelu(x))
    assert repr(modules.GELU(approximate="tanh")) == repr(nn.GELU(approximate="tanh"))


def test_opcheck_and_one_graph(kind):
    if not native.available():
        pytest.skip("the native module was not built")
    x = torch.randn(2, 3, 16).bfloat16().requires_grad_()
    library.opcheck(torch.ops.imagen_fast.gelu_cpu, (x, kind.quick))
    compiled = torch.compile(kind.ours, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), kind.ours(x))
