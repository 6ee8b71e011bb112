"""Ours in place of PyTorch's `scaled_dot_product_attention`: the same output and gradients."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from imagen_fast import native
from imagen_fast.integrations import sdpa
from imagen_fast.ops import use_backend

B, H, M, N, D = 2, 3, 7, 11, 16

pytestmark = pytest.mark.skipif(
    not native.attention_pays(torch.float32), reason="PyTorch's attention serves all on this processor"
)


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """The names of our operations that served a call."""
    names = []

    def noted(operation):
        def call(*args, **kwargs):
            names.append(operation.__name__)
            return operation(*args, **kwargs)

        return call

    for operation in (sdpa.masked_patch_attention, sdpa.causal_pixel_attention):
        monkeypatch.setattr(sdpa, operation.__name__, noted(operation))
    return names


def drawn(*shape, dtype=torch.float32, seed=0, grad=True):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(grad)


def qkv(queries=M, keys=N, dtype=torch.float32):
    return [drawn(B, H, n, D, dtype=dtype, seed=seed) for seed, n in enumerate((queries, keys, keys))]


def outcome(attend, tensors, mask=None, weight=None, **options):
    """Output and gradients, that of a mask too where it wants one."""
    wanted = [x for x in (*tensors, mask) if x is not None and x.requires_grad]
    out = attend(*tensors, attn_mask=mask, **options)
    weight = drawn(*out.shape, seed=9, grad=False).to(out.dtype) if weight is None else weight
    return [out.detach(), *torch.autograd.grad(out, wanted, weight)]


def check(error_bound, tensors, mask=None, **options):
    """Against PyTorch's in float64, no worse than PyTorch's in their own type."""

    def wide(x):
        if x is None or not x.is_floating_point():
            return x
        return x.detach().double().requires_grad_(x.requires_grad)

    exact = outcome(
        functional.scaled_dot_product_attention, [wide(x) for x in tensors], wide(mask), **options
    )
    peer = outcome(functional.scaled_dot_product_attention, tensors, mask, **options)
    ours = outcome(sdpa.scaled_dot_product_attention, tensors, mask, **options)
    for number, (actual, wanted, other) in enumerate(zip(ours, exact, peer, strict=True)):
        assert actual.dtype == other.dtype
        assert actual.shape == other.shape
        error_bound(actual, wanted, other, f"tensor {number}")


def padding(keys=N):
    seen = torch.rand(B, 1, 1, keys, generator=torch.Generator().manual_seed(3)) < 0.7
    seen[..., 0] = True
    return seen


SERVED = {
    "all tokens": lambda: (qkv(), None, {}),
    "as many": lambda: (qkv(N, N), None, {"scale": 0.3}),
    "with a gradient of one only": lambda: ([qkv()[0], *(x.detach() for x in qkv()[1:])], None, {}),
    "padding": lambda: (qkv(), padding(), {}),
    "padding, expanded": lambda: (qkv(), padding().expand(B, H, M, N), {}),
    "padding of all images": lambda: (qkv(), padding()[:1], {}),
    "padding in two dimensions": lambda: (qkv(), padding()[0, 0], {}),
    "no key hidden": lambda: (qkv(), torch.ones(1, 1, dtype=torch.bool), {}),
    "causal": lambda: (qkv(N, N), None, {"is_causal": True}),
    "equal heads that may be grouped": lambda: (qkv(), None, {"enable_gqa": True}),
}
NOT_SERVED = {
    "causal, fewer queries": lambda: (qkv(M, N), None, {"is_causal": True}),
    "causal, more queries": lambda: (qkv(N, M), None, {"is_causal": True}),
    "a mask of its own for each query": lambda: (qkv(), torch.rand(B, 1, M, N) < 0.9, {}),
    "a mask of its own for each head": lambda: (qkv(), padding() & (torch.rand(1, H, 1, 1) < 2), {}),
    "added mask": lambda: (qkv(), drawn(B, 1, M, N, grad=False), {}),
    "added mask with -inf": lambda: (qkv(), torch.zeros(1, N).index_fill(1, torch.tensor(2), -torch.inf), {}),
    # On the CPU our operation has no kernel for it.
    "learned mask": lambda: (qkv(), drawn(1, H, M, N, seed=5), {}),
    "learned mask of each image": lambda: (qkv(), drawn(B, H, M, N, seed=5), {}),
    "grouped heads": lambda: (
        [drawn(B, 2 * H, M, D), *qkv()[1:]],
        None,
        {"enable_gqa": True},
    ),
    "one image of keys for all": lambda: ([qkv()[0], *(x[:1].detach() for x in qkv()[1:])], None, {}),
    "one head of keys for all": lambda: ([qkv()[0], *(x[:, :1].detach() for x in qkv()[1:])], None, {}),
    "three dimensions": lambda: ([x.detach()[0].requires_grad_() for x in qkv()], None, {}),
    "five dimensions": lambda: ([x.detach()[None].requires_grad_() for x in qkv()], None, {}),
    "another width of values": lambda: ([*qkv()[:2], drawn(B, H, N, 8, seed=4)], None, {}),
    "float64": lambda: (qkv(dtype=torch.float64), None, {}),
    "float16": lambda: (qkv(dtype=torch.float16), None, {}),
    "no image": lambda: ([x.detach()[:0].requires_grad_() for x in qkv()], None, {}),
    "no query": lambda: (qkv(0, N), None, {}),
    "no key": lambda: (qkv(M, 0), None, {}),
    "no width": lambda: ([x.detach()[..., :0].requires_grad_() for x in qkv()], None, {}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", SERVED)
def test_ours_serves(case, dtype, served, error_bound, poisoned_memory):
    tensors, mask, options = SERVED[case]()
    tensors = [x.detach().to(dtype).requires_grad_(x.requires_grad) for x in tensors]
    check(error_bound, tensors, mask, **options)
    assert served == ["causal_pixel_attention" if options.get("is_causal") else "masked_patch_attention"]


@pytest.mark.parametrize("case", NOT_SERVED)
def test_the_rest_is_pytorchs_own(case, served):
    tensors, mask, options = NOT_SERVED[case]()
    theirs = outcome(functional.scaled_dot_product_attention, tensors, mask, **options)
    ours = outcome(sdpa.scaled_dot_product_attention, tensors, mask, **options)
    assert served == []
    for actual, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(actual, wanted)


def test_dropped_probabilities_are_pytorchs(served):
    def dropping(attend):
        torch.manual_seed(0)
        return attend(*qkv(), dropout_p=0.5)

    assert torch.equal(
        dropping(sdpa.scaled_dot_product_attention), dropping(functional.scaled_dot_product_attention)
    )
    assert served == []


def test_a_mistake_is_explained_by_pytorch():
    q, k, v = qkv()
    with pytest.raises(RuntimeError, match="Explicit attn_mask"):
        sdpa.scaled_dot_product_attention(q, k, v, padding(), is_causal=True)
    with pytest.raises(RuntimeError, match="same dtype"):
        sdpa.scaled_dot_product_attention(q, k.bfloat16(), v)
    with pytest.raises(RuntimeError, match=r"size|expand"):
        sdpa.scaled_dot_product_attention(q, k, v, padding(N + 1))


@pytest.mark.parametrize("layout", ["fused", "tokens first", "heads first", "width strided"])
def test_any_strides(layout, served, error_bound):
    if layout == "fused":
        tensors = drawn(B, N, 3, H, D, grad=False).permute(2, 0, 3, 1, 4).unbind(0)
    elif layout == "tokens first":
        tensors = [drawn(B, N, H, D, seed=n, grad=False).transpose(1, 2) for n in range(3)]
    elif layout == "heads first":
        tensors = [drawn(B, H, N, D, seed=n, grad=False) for n in range(3)]
    else:
        tensors = [drawn(B, H, D, N, seed=n, grad=False).transpose(2, 3) for n in range(3)]
    check(error_bound, [x.detach().requires_grad_() for x in tensors])
    assert bool(served) == (layout != "width strided")


def test_an_expanded_gradient(served):
    q, k, v = qkv()
    expanded = torch.ones(()).expand(B, H, M, D)
    ours = outcome(sdpa.scaled_dot_product_attention, (q, k, v), weight=expanded)
    theirs = outcome(functional.scaled_dot_product_attention, (q, k, v), weight=expanded)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert served


def test_a_row_with_nothing_to_attend_to_gives_zeros_as_pytorchs(served):
    tensors, seen = qkv(), padding()
    seen[0] = False
    ours = outcome(sdpa.scaled_dot_product_attention, tensors, seen)
    theirs = outcome(functional.scaled_dot_product_attention, tensors, seen)
    assert served
    assert bool((ours[0][0] == 0).all())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_hidden_changes_nothing(served):
    q, k, v = qkv()
    seen = padding()

    def outputs(poison):
        hidden = ~seen.transpose(2, 3)
        return sdpa.scaled_dot_product_attention(
            q, k.masked_fill(hidden, poison), v.masked_fill(hidden, poison), seen
        )

    assert torch.equal(outputs(torch.nan), outputs(0.5))
    assert len(served) == 2


@pytest.mark.parametrize("learned", [(1, H, M, N), (H, M, N), (M, N), (1, 1, 1, N)], ids=str)
def test_a_learned_mask_where_a_kernel_has_it(learned, served, monkeypatch):
    """On a GPU; here the definition in its place."""
    monkeypatch.setattr(sdpa, "kernel_serves", lambda *args, **kwargs: True)
    mask = drawn(*learned, seed=5, grad=False)
    mask.view(-1)[1] = -torch.inf
    mask.view(-1)[2] = torch.finfo(mask.dtype).min
    mask.requires_grad_()
    tensors = qkv()
    theirs = outcome(functional.scaled_dot_product_attention, tensors, mask)
    with use_backend("reference"):
        ours = outcome(sdpa.scaled_dot_product_attention, tensors, mask)
    assert served == ["masked_patch_attention"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_types_that_are_left_to_pytorch(served):
    q, k, v = qkv()
    attend = sdpa.scaled_dot_product_attention
    assert torch.equal(
        attend(q, k, v, types=frozenset({torch.bfloat16})),
        functional.scaled_dot_product_attention(q, k, v),
    )
    assert served == []
    # Under autocast its type counts, not that of the tensors.
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, k, v, types=frozenset({torch.bfloat16}))
        theirs = functional.scaled_dot_product_attention(q, k, v)
    assert served == ["masked_patch_attention"]
    assert out.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(out, theirs, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", ["all tokens", "padding, expanded", "causal"])
def test_a_graph_is_whole(case, dynamic, served, error_bound):
    tensors, mask, options = SERVED[case]()
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    def attend(q, k, v, attn_mask=None, **options):
        return sdpa.scaled_dot_product_attention(q, k, v, attn_mask, **options)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=dynamic, backend=keep)
    theirs = outcome(functional.scaled_dot_product_attention, tensors, mask, **options)
    torch.testing.assert_close(outcome(compiled, tensors, mask, **options), theirs, rtol=1e-4, atol=1e-5)
    names = {str(node.target) for node in graphs[0].graph.nodes}
    assert any(name.startswith("imagen_fast.") for name in names), names


@pytest.mark.parametrize("case", ["all tokens", "padding, expanded", "causal"])
def test_one_graph_serves_batches_of_any_size(case, monkeypatch):
    monkeypatch.undo()  # a list that grows would be a reason to compile anew
    tensors, mask, options = SERVED[case]()
    graphs = CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(sdpa.scaled_dot_product_attention, fullgraph=True, backend=graphs)
    for times in range(1, 11):
        more = [x.detach().repeat(times, 1, 1, 1) for x in tensors]
        seen = None if mask is None else mask[:, :, :1].repeat(times, 1, 1, 1).expand(-1, -1, M, -1)
        compiled(*more, attn_mask=seen, **options)
    assert graphs.frame_count <= 2


def test_a_graph_of_what_pytorch_serves():
    q, k, v = qkv(M, N)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda *tensors: sdpa.scaled_dot_product_attention(*tensors, is_causal=True),
        fullgraph=True,
        backend="eager",
    )
    assert torch.equal(compiled(q, k, v), functional.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_tensors_without_numbers(served):
    for shape in ((B, H, M, D), (B, H, 0, D)):
        x = torch.empty(shape, device="meta")
        assert sdpa.scaled_dot_product_attention(x, x, x).shape == shape
        with FakeTensorMode():
            x = torch.empty(shape)
            assert sdpa.scaled_dot_product_attention(x, x, x).shape == shape
    assert served == []


def test_a_mask_that_is_an_attention_of_its_own(served):
    q, k, v = (x.detach() for x in qkv())
    mask = causal_lower_right(M, N)
    assert torch.equal(
        sdpa.scaled_dot_product_attention(q, k, v, mask),
        functional.scaled_dot_product_attention(q, k, v, mask),
    )
    assert served == []


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transformed_functions_are_pytorchs(served):
    q, k, v = (x.detach() for x in qkv())

    def loss(q):
        return sdpa.scaled_dot_product_attention(q, k, v).square().sum()

    leaf = q.clone().requires_grad_()
    wanted = torch.autograd.grad(functional.scaled_dot_product_attention(leaf, k, v).square().sum(), leaf)[0]
    torch.testing.assert_close(torch.func.grad(loss)(q), wanted)
    images = torch.func.vmap(sdpa.scaled_dot_product_attention)(*(x[:, None] for x in (q, k, v)))
    torch.testing.assert_close(images[:, 0], functional.scaled_dot_product_attention(q, k, v))
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with forward_ad.dual_level(), math:
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(q, torch.ones_like(q)))).tangent
    torch.testing.assert_close(tangent, wanted.sum(), rtol=1e-4, atol=1e-4)
    assert served == []
