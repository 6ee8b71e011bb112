"""Our attention in PyTorch's registry: plain calls run on ours, and then on PyTorch's own again."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from imagen_fast import native
from imagen_fast.errors import BackendUnavailable
from imagen_fast.integrations import torch_attention
from imagen_fast.ops import flash

activate, restore = nn.attention.activate_flash_attention_impl, nn.attention.restore_flash_attention_impl
ATEN = torch.ops.aten
B, H, N, D = 2, 3, 11, 16

pytestmark = pytest.mark.skipif(
    not native.attention_pays(torch.float32), reason="PyTorch's attention serves all on this processor"
)


@pytest.fixture
def served(monkeypatch):
    """The names of our passes, as they run."""
    names = []

    def noted(function):
        def call(*args):
            names.append(function.__name__)
            return function(*args)

        return call

    for function in (flash.forward, flash.backward):
        monkeypatch.setattr(flash, function.__name__, noted(function))
    return names


@pytest.fixture
def active():
    torch_attention.register_flash_attention()
    activate("imagen_fast")
    yield
    restore(_raise_warn=False)


def drawn(queries=N, keys=N, dtype=torch.float32, layout="fused"):
    draw = torch.Generator().manual_seed(0)
    if layout == "fused":
        made = torch.randn(3, B, max(queries, keys), H, D, generator=draw).transpose(2, 3)
    else:
        made = torch.randn(3, B, H, max(queries, keys), D, generator=draw)
    q, k, v = made.to(dtype).unbind()
    return [x.detach().requires_grad_() for x in (q[:, :, :queries], k[:, :, :keys], v[:, :, :keys])]


def outcome(tensors, **options):
    out = scaled_dot_product_attention(*tensors, **options)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, weight)]


@pytest.mark.parametrize("layout", ["fused", "heads first"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_plain_call(dtype, options, layout, served, error_bound, poisoned_memory):
    tensors = drawn(dtype=dtype, layout=layout)
    exact = outcome([x.detach().double().requires_grad_() for x in tensors], **options)
    peer = outcome(tensors, **options)
    assert served == []
    torch_attention.register_flash_attention()
    activate("imagen_fast")
    ours = outcome(tensors, **options)
    restore()
    assert served == ["forward", "backward"]
    after = outcome(tensors, **options)
    assert served == ["forward", "backward"]
    for number, (a, e, p, again) in enumerate(zip(ours, exact, peer, after, strict=True)):
        error_bound(a, e, p, f"tensor {number}")
        assert a.stride() == p.stride()
        assert torch.equal(p, again)


@pytest.mark.parametrize(
    "case",
    [
        lambda: (drawn(), {"attn_mask": torch.rand(B, 1, 1, N) < 0.9}),
        lambda: (drawn(7, N), {"is_causal": True}),
        lambda: (drawn(dtype=torch.float64), {}),
        lambda: (drawn(dtype=torch.float16), {}),
        lambda: ([x.detach()[..., :15].requires_grad_() for x in drawn()], {}),
        lambda: ([x.detach()[:0].requires_grad_() for x in drawn()], {}),
        lambda: (
            [drawn()[0], *(x[:, :1].detach().requires_grad_() for x in drawn()[1:])],
            {"enable_gqa": True},
        ),
    ],
    ids=["mask", "fewer queries, causal", "float64", "float16", "odd width", "no image", "grouped heads"],
)
def test_the_rest_is_as_before(case, served):
    tensors, options = case()
    before = outcome(tensors, **options)
    torch_attention.register_flash_attention()
    activate("imagen_fast")
    while_active = outcome(tensors, **options)
    restore()
    assert served == []
    for actual, wanted in zip(while_active, before, strict=True):
        assert torch.equal(actual, wanted)


def test_fewer_queries_than_keys(served, active):
    tensors = drawn(7, N)
    ours = outcome(tensors)
    restore()
    torch.testing.assert_close(ours, outcome(tensors), rtol=1e-4, atol=1e-5)
    assert served == ["forward", "backward"]


@pytest.mark.parametrize("causal", [False, True])
def test_a_pass_of_either_kind_goes_with_the_other(causal, served):
    """What is kept between the passes is PyTorch's own."""
    q, k, v = tensors = drawn()
    wanted = outcome(tensors, is_causal=causal)[1:]
    weight = torch.randn(wanted[0].shape, generator=torch.Generator().manual_seed(1))
    torch_attention.register_flash_attention()

    def across(before, between):
        before()
        out = scaled_dot_product_attention(q, k, v, is_causal=causal)
        between()
        return torch.autograd.grad(out, tensors, weight)

    def on():
        activate("imagen_fast")

    torch.testing.assert_close(list(across(on, restore)), wanted, rtol=1e-4, atol=1e-5)
    assert served == ["forward"]
    torch.testing.assert_close(list(across(lambda: None, on)), wanted, rtol=1e-4, atol=1e-5)
    restore()
    assert served == ["forward", "backward"]


def test_what_is_kept_is_the_logarithm_of_the_sum(active):
    q, k, v = (x.detach() for x in drawn())
    for causal in (False, True):
        scores = q.double() @ k.double().transpose(2, 3) / D**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(N, N).triu(1) > 0, -torch.inf)
        _, lse = ATEN._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
        _, laid_out = ATEN._scaled_dot_product_flash_attention_for_cpu(*(x.to("meta") for x in (q, k, v)))
        assert lse.stride() == laid_out.stride()
        torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_a_compiled_graph_follows(served):
    tensors = drawn()
    torch.compiler.reset()
    compiled = torch.compile(
        lambda q, k, v: scaled_dot_product_attention(q, k, v), fullgraph=True, backend="aot_eager"
    )
    weight = torch.ones(B, H, N, D)

    def run():
        out = compiled(*tensors)
        return [out.detach(), *torch.autograd.grad(out, tensors, weight)]

    before = run()
    assert served == []
    torch_attention.register_flash_attention()
    activate("imagen_fast")
    with torch._dynamo.config.patch(error_on_recompile=True):
        ours = run()
        restore()
        after = run()
    assert served == ["forward", "backward"]
    torch.testing.assert_close(ours, before, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_a_module_of_pytorchs_and_autocast(served, active):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(32, 2, batch_first=True)
    x = torch.randn(2, N, 32)
    ours = layer(x, x, x, need_weights=False)[0]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        half = scaled_dot_product_attention(*torch.randn(3, B, H, N, D).unbind())
    assert half.dtype == torch.bfloat16
    assert served == ["forward", "forward"]
    restore()
    torch.testing.assert_close(ours, layer(x, x, x, need_weights=False)[0], rtol=1e-4, atol=1e-5)


def test_the_registry_knows_it(active):
    assert "imagen_fast" in nn.attention.list_flash_attention_impls()
    assert nn.attention.current_flash_attention_impl() == "imagen_fast"
    # To be active twice is to be active.
    activate("imagen_fast")
    restore()
    assert nn.attention.current_flash_attention_impl() is None


def test_nothing_stays_in_the_dispatcher():
    operators = [
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "CPU"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "CPU"),
        ("aten::_scaled_dot_product_flash_attention", "CUDA"),
        ("aten::_scaled_dot_product_flash_attention_backward", "CUDA"),
    ]

    def table():
        return [torch._C._dispatch_dump(name) for name, _ in operators]

    before = table()
    torch_attention.register_flash_attention()
    assert table() == before
    activate("imagen_fast")
    changed = [line != old for line, old in zip(table(), before, strict=True)]
    assert changed == [True, True, *[torch.version.cuda is not None] * 2]
    restore()
    assert table() == before


def test_without_a_registry(monkeypatch):
    monkeypatch.delattr(nn.attention, "register_flash_attention_impl")
    with pytest.raises(BackendUnavailable, match=r"PyTorch .* has no registry of flash attention"):
        torch_attention.register_flash_attention()


@pytest.mark.parametrize("layout", ["fused", "heads first"])
def test_what_cuda_gets_is_laid_out_as_its_compiler_expects(layout, served):
    """The CPU's kernels in place of a GPU's; the numbers and shapes beside the tensors are CUDA's."""
    q, k, v = tensors = drawn(7, N, torch.bfloat16, layout)
    alike = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") for x in tensors]
    wanted = ATEN._scaled_dot_product_flash_attention(*alike)
    got = torch_attention._forward_cuda(*(x.detach() for x in tensors))
    assert_laid_out(got, wanted)
    wanted = ATEN._scaled_dot_product_flash_attention_backward(
        torch.empty_like(wanted[0]), *alike, *wanted[:6], 0.0, False, *wanted[6:8]
    )
    weight = functional.normalize(got[0], dim=-1)
    gradients = torch_attention._backward_cuda(
        weight, *(x.detach() for x in tensors), *got[:6], 0.0, False, *got[6:8]
    )
    assert_laid_out(gradients, wanted)
    out = scaled_dot_product_attention(q, k, v)
    theirs = torch.autograd.grad(out, tensors, weight)
    torch.testing.assert_close(list(gradients), list(theirs), rtol=3e-2, atol=3e-2)
    assert served == ["forward", "backward"]
    assert torch_attention._forward_cuda(q, k, v, return_debug_mask=True) is None
    assert torch_attention._forward_cuda(q, k, v, 0.5) is None


def assert_laid_out(got, wanted):
    for actual, expected in zip(got, wanted, strict=True):
        if isinstance(expected, torch.Tensor):
            assert (actual.shape, actual.stride(), actual.dtype) == (
                expected.shape,
                expected.stride(),
                expected.dtype,
            )
        else:
            assert actual == expected
