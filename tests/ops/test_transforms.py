"""Operations under torch.func, in forward mode, and compiled or exported for batches of any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from imagen_fast import ops
from imagen_fast.errors import BackendUnavailable
from imagen_fast.ops import modules
from imagen_fast.ops.contexts import Rows

WIDTH = 32


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def hidden_of(batch):
    return torch.arange(16).expand(batch, 16) % 4 != torch.arange(batch)[:, None] % 4


def masked(x):
    q, k, v = x.unflatten(-1, (3, 2, -1)).unbind(2)
    context = ops.Visible.in_place(hidden_of(len(x)))
    return ops.masked_patch_attention(q, k, v, ops.Visible(Rows(q.shape[1]), context.keys))


def causal(x):
    q, k, v = x.unflatten(-1, (3, 2, -1)).unbind(2)
    return ops.causal_pixel_attention(q, k, v, (4, 4), ops.Raster())


IMAGES, WEIGHT = draw(12, 3, 16, 16), draw(8, 6 * WIDTH)


def mse(x):
    return ops.masked_pixel_mse(x[..., :48], IMAGES[: x.shape[0]], hidden_of(x.shape[0]))


def cross_entropy(x):
    return ops.pixel_cross_entropy(x, WEIGHT, torch.arange(16).expand(x.shape[0], 16) % 8)


def half(module):
    module = module.bfloat16()
    return lambda x: module(x.bfloat16()).float()


FUNCTIONS = {
    "masked_patch_attention": masked,
    "causal_pixel_attention": causal,
    "masked_pixel_mse": mse,
    "pixel_cross_entropy": cross_entropy,
    "GELU": half(modules.GELU()),
    "QuickGELU": half(modules.QuickGELU()),
    "LayerNorm": half(modules.LayerNorm(6 * WIDTH)),
    "RMSNorm": half(modules.RMSNorm(6 * WIDTH, eps=1e-6)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tangent_goes_with_the_gradient(name):
    function, x, along = FUNCTIONS[name], draw(2, 16, 6 * WIDTH), draw(3, 16, 6 * WIDTH)[1:]
    out, tangent = torch.func.jvp(function, (x,), (along,))
    leaf = x.clone().requires_grad_()
    incoming = torch.linspace(0.5, 1.5, out.numel()).view(out.shape)
    (gradient,) = torch.autograd.grad(function(leaf), leaf, incoming)
    forward, backward = (tangent * incoming).sum(), (gradient * along).sum()
    close = 0.005 if name in modules.__all__ else 1e-5  # those in bf16
    assert abs(forward - backward) < close * tangent.norm() * incoming.norm()
    assert tangent.norm() > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_func_gives_the_same_gradient(name):
    function, x = FUNCTIONS[name], draw(2, 16, 6 * WIDTH)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
    close = 0.05 if name in modules.__all__ else 1e-4
    torch.testing.assert_close(
        torch.func.grad(lambda x: function(x).sum())(x), gradient, rtol=close, atol=close
    )


def test_a_back_end_that_is_forced_says_so():
    q = draw(2, 16, 2, WIDTH)
    with pytest.raises(BackendUnavailable, match=r"no rules for torch\.func and forward-mode"):
        torch.func.jvp(lambda q: ops.masked_patch_attention(q, q, q, backend="cpu"), (q,), (q,))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_graph_serves_batches_of_any_size(name):
    if name == "masked_patch_attention":

        def function(x, hidden):
            q, k, v = x.unflatten(-1, (3, 2, -1)).unbind(2)
            return ops.masked_patch_attention(q, k, v, ops.Visible.in_place(hidden))

        calls = [(draw(batch, 16, 6 * WIDTH), hidden_of(batch)) for batch in range(2, 12)]
    else:
        function = FUNCTIONS[name]
        calls = [(draw(batch, 16, 6 * WIDTH),) for batch in range(2, 12)]
    torch.compiler.reset()
    graphs = CompileCounter()
    compiled = torch.compile(function, fullgraph=True, backend=graphs)
    for call in calls:
        torch.testing.assert_close(compiled(*call), function(*call), rtol=0.02, atol=0.02)
    assert graphs.frame_count <= 2


def test_a_layer_is_exported_for_batches_of_any_size():
    layer = nn.Sequential(nn.Linear(WIDTH, 64), modules.GELU()).bfloat16().eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(layer, (draw(8, WIDTH).bfloat16(),), dynamic_shapes=({0: batch},))
    x = draw(3, WIDTH).bfloat16()
    torch.testing.assert_close(exported.module()(x), layer(x), rtol=0.02, atol=0.02)
