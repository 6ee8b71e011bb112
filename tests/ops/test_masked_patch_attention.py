from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import native, ops
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops import Visible
from imagen_fast.ops.cpu import masked_patch_attention as cpu
from imagen_fast.ops.reference import put, take

# 7 and 23 are odd and prime; 600 keys take the long path in half precision; 1 is the shortest.
SIZES = ((3, 23, 2, 32), (2, 1, 1, 64), (4, 49, 3, 72), (1, 600, 1, 32))


def sdpa(q, k, v, context):
    """PyTorch's own kernel on the listed rows, with the boolean mask that the context stands for."""
    queries, keys = (
        (ops.Rows(q.shape[1]), ops.Rows(k.shape[1])) if context is None else (context.queries, context.keys)
    )
    taken, _ = take(q, queries)
    (wide_k, seen), (wide_v, _) = take(k, keys), take(v, keys)
    seeing = seen.any(1)[:, None, None, None]
    mask = seen[:, None, None, :] | ~seeing  # PyTorch makes NaN of a row without keys
    out = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (taken, wide_k, wide_v)), attn_mask=mask)
    return put((out * seeing).transpose(1, 2), queries, q)


def outcome(q, k, v, context, backend, dtype, weight):
    inputs = [x.detach().to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
    # The views of a fused tensor keep their strides through the test.
    for x, origin in zip(inputs, (q, k, v), strict=True):
        x.data = torch.empty_strided(origin.shape, origin.stride(), dtype=dtype).copy_(origin)
    if backend == "sdpa":
        out = sdpa(*inputs, context)
    else:
        out = ops.masked_patch_attention(*inputs, context, backend=backend)
    out.backward(weight.to(dtype))
    return [out.detach(), *(x.grad for x in inputs)]


@pytest.fixture(params=["avx512_bf16", "avx512", "avx2", "portable", "pytorch"])
def way(request, monkeypatch):
    """With our kernel, as each instruction set has it, and without it."""
    if request.param == "pytorch":
        monkeypatch.setattr(native, "attention_pays", lambda dtype: False)
        return request.param
    request.getfixturevalue("use_instruction_set")(request.param)
    monkeypatch.setattr(native, "attention_pays", lambda dtype: dtype in (torch.float32, torch.bfloat16))
    return request.param


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_cpu_is_within_the_error_bound(
    use, size, dtype, way, make_attention_case, error_bound, poisoned_memory
):
    (q, k, v), context = make_attention_case(use, dtype, *size)
    weight = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = outcome(q, k, v, context, "reference", torch.float64, weight)
    # On other processors float32 goes through PyTorch's flash kernel, whose backward is a little less exact
    # than plain products.
    peer = outcome(q, k, v, context, "sdpa" if dtype == torch.float32 else "reference", dtype, weight)
    ours = outcome(q, k, v, context, "cpu", dtype, weight)
    for name, a, e, p in zip(("out", "dq", "dk", "dv"), ours, exact, peer, strict=True):
        error_bound(a, e, p, f"{use} {size} {name}")


def test_reference_is_sdpa_with_the_boolean_mask(make_attention_case):
    (q, k, v), context = make_attention_case("all", torch.float64)
    spans, index = context.keys.spans, context.keys.index
    seen = torch.zeros(q.shape[:2], dtype=torch.bool)
    for image, (_, count) in enumerate(spans.tolist()):
        seen[image, index[image, :count].long()] = True
    mask = seen[:, None, None, :].expand(-1, -1, q.shape[1], -1)
    wanted = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask).transpose(
        1, 2
    )
    wanted[~seen.any(1)] = 0  # nothing to attend to
    torch.testing.assert_close(ops.masked_patch_attention(q, k, v, context, backend="reference"), wanted)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", ["all", "visible"])
def test_hidden_tokens_change_no_visible_bit(backend, dtype, rows, way, make_attention_case):
    (q, k, v), context = make_attention_case("visible", dtype)
    visible = torch.zeros(q.shape[:2], dtype=torch.bool)
    for image, (_, count) in enumerate(context.keys.spans.tolist()):
        visible[image, context.keys.index[image, :count].long()] = True
    context = Visible.in_place(~visible, rows)

    def run(poison):
        inputs = [x.detach().clone() for x in (q, k, v)]
        for x in inputs[1:] if rows == "all" else inputs:
            x[~visible] = poison
        for x in inputs:
            x.requires_grad_()
        out = ops.masked_patch_attention(*inputs, context, backend=backend)
        out[visible].sum().backward()
        return [out.detach()[visible], *(x.grad[visible] for x in inputs)]

    for clean, poisoned in zip(run(0.5), run(float("nan")), strict=True):
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_with_nothing_to_attend_to_gives_zeros_and_finite_gradients(backend, dtype, way):
    q, k, v = (torch.randn(2, 5, 2, 32).to(dtype).requires_grad_() for _ in range(3))
    hidden = torch.tensor([[True] * 5, [False] * 5])
    out = ops.masked_patch_attention(q, k, v, Visible.in_place(hidden), backend=backend)
    out.sum().backward()
    assert bool((out[0] == 0).all())
    assert bool((out[1] != 0).any())
    for x in (q, k, v):
        assert bool((x.grad[0] == 0).all())
        assert bool(torch.isfinite(x.grad).all())


def test_packed_equals_in_place(way):
    hidden = torch.rand(4, 19, generator=torch.Generator().manual_seed(0)) < 0.5
    q, k, v = torch.randn(4, 19, 3, 2, 32).unbind(2)
    in_place = ops.masked_patch_attention(q, k, v, Visible.in_place(hidden, "visible"), backend="cpu")
    packed = [x[~hidden] for x in (q, k, v)]
    lengths = (~hidden).sum(1)
    out = ops.masked_patch_attention(*packed, Visible.packed(lengths), backend="cpu")
    torch.testing.assert_close(out, in_place[~hidden])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_is_bitwise_repeatable(dtype, use, make_attention_case):
    (q, k, v), context = make_attention_case(use, dtype)
    weight = torch.ones(q.shape)
    first = outcome(q, k, v, context, "cpu", dtype, weight)
    for _ in range(5):
        assert all(
            torch.equal(a, b)
            for a, b in zip(first, outcome(q, k, v, context, "cpu", dtype, weight), strict=True)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_does_not_depend_on_the_number_of_threads(dtype, make_attention_case):
    (q, k, v), context = make_attention_case("visible", dtype, 5, 49)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(outcome(q, k, v, context, "cpu", dtype, torch.ones(q.shape)))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck(use, make_attention_case):
    (q, k, v), context = make_attention_case(use, torch.float64, 2, 5, 1, 8)
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    for backend in ("cpu", "reference"):
        assert torch.autograd.gradcheck(
            lambda *x, b=backend: ops.masked_patch_attention(*x, context, backend=b),
            inputs,
            eps=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(use, dtype, way, make_attention_case):
    (q, k, v), context = make_attention_case(use, dtype)
    queries = ops.Rows(q.shape[1]) if context is None else context.queries
    keys = ops.Rows(k.shape[1]) if context is None else context.keys
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    tables = (queries.spans, queries.index, keys.spans, keys.index, queries.longest, keys.longest, 0.2)
    torch.library.opcheck(torch.ops.imagen_fast.masked_patch_attention_cpu, (*inputs, *tables))


def test_compiles_in_one_graph(make_attention_case):
    (q, k, v), context = make_attention_case("visible", torch.float32)
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    compiled = torch.compile(
        lambda *x: ops.masked_patch_attention(*x, context), fullgraph=True, backend="aot_eager"
    )
    out = compiled(*inputs)
    torch.testing.assert_close(out, ops.masked_patch_attention(*inputs, context))
    out.sum().backward()
    assert inputs[1].grad is not None


def test_autocast_computes_in_its_type():
    q, k, v = torch.randn(2, 9, 3, 2, 32).unbind(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.masked_patch_attention(q, k, v).dtype == torch.bfloat16


def test_operations_are_counted():
    q, k, v = (x.requires_grad_() for x in torch.randn(2, 9, 3, 2, 32).unbind(2))
    with FlopCounterMode(display=False) as counter:
        ops.masked_patch_attention(q, k, v, backend="cpu").sum().backward()
    product = 2 * 2 * 2 * 9 * 9 * 32
    assert counter.get_total_flops() == (2 + 5) * product


def test_forced_backend_raises_its_reason():
    q = torch.randn(1, 4, 1, 32)
    with pytest.raises(BackendUnavailable, match=r"masked_patch_attention: the triton back-end cannot serve"):
        ops.masked_patch_attention(q, q, q, backend="triton")
    with ops.use_backend("reference"):
        ops.masked_patch_attention(q, q, q)
    with pytest.raises(InvalidInput, match="backend must be one of"):
        ops.masked_patch_attention(q, q, q, backend="fastest")


def test_triton_is_never_chosen_for_a_cpu_tensor_by_itself():
    q = torch.randn(1, 4, 1, 32)
    out = ops.masked_patch_attention(q, q, q)
    assert torch.equal(out, cpu.masked_patch_attention(q, q, q, None, None, None, None, 4, 4, 32**-0.5))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (2, 4), (2, 4)), "must be"),
        (((1, 4, 2, 32), (1, 4, 3, 32), (1, 4, 3, 32)), "one shape, and q's heads"),
        (((1, 4, 2, 32), (1, 4, 2, 32), (1, 5, 2, 32)), "one shape"),
        (((4, 2, 32), (4, 2, 32), (4, 2, 32)), "need a context"),
        (((1, 4, 2, 32), (2, 4, 2, 32), (2, 4, 2, 32)), "as many images"),
    ],
)
def test_bad_shapes_are_one_sentence(shapes, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.masked_patch_attention(*(torch.randn(s) for s in shapes))
    assert "\n" not in str(caught.value)


def test_bad_types_and_contexts_are_one_sentence():
    q = torch.randn(1, 4, 1, 32)
    with pytest.raises(InvalidInput, match="share a type"):
        ops.masked_patch_attention(q, q.half(), q.half())
    with pytest.raises(InvalidInput, match="hidden must be a bool"):
        Visible.in_place(torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match="rows must be"):
        Visible.in_place(torch.zeros(2, 3, dtype=torch.bool), "some")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="lengths must be integers"):
        Visible.packed(torch.zeros(3))


@pytest.mark.parametrize(
    ("shape", "context", "message"),
    [
        ((1, 4, 1, 32), lambda: Visible.in_place(torch.zeros(1, 9, dtype=torch.bool)), "for 9 tokens"),
        (
            (1, 9, 1, 32),
            lambda: Visible.in_place(torch.zeros(1, 4, dtype=torch.bool), "visible"),
            "grid of 4",
        ),
        ((9, 1, 32), lambda: Visible.in_place(torch.zeros(1, 9, dtype=torch.bool), "visible"), "for tensors"),
        ((2, 4, 1, 32), lambda: Visible.packed(torch.tensor([4, 4])), "for packed tensors"),
        ((15, 1, 32), lambda: Visible.packed(torch.tensor([10, 10])), "rows up to 20"),
        ((15, 1, 32), lambda: Visible.packed(torch.tensor([10, -3]), 10), "least start or count of -3"),
        ((15, 1, 32), lambda: Visible.packed(torch.tensor([8, 7]), 7), "lists 8 rows .* at most 7"),
        (
            (1, 9, 1, 32),
            lambda: Visible.in_place(torch.zeros(1, 9, dtype=torch.bool), "all", most_visible=3),
            "lists 9 rows .* at most 3",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_context_that_does_not_fit_is_one_sentence_and_touches_no_memory(shape, context, message, backend):
    q = torch.randn(shape)
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.masked_patch_attention(q, q, q, context(), backend=backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [-5.0, -0.2, 0.0, 7.0])
def test_any_scale(dtype, scale, way, error_bound):
    q, k, v = (
        (3 * torch.randn(2, 11, 3, 2, 32, generator=torch.Generator().manual_seed(0))).to(dtype).unbind(2)
    )

    def run(backend, to):
        return ops.masked_patch_attention(q.to(to), k.to(to), v.to(to), scale=scale, backend=backend)

    error_bound(run("cpu", dtype), run("reference", torch.float64), run("reference", dtype))
