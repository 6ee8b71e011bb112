from __future__ import annotations

import pytest
import torch
from torch import library
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import native, ops
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops import Neighbourhood, Quadrant, Raster
from imagen_fast.ops.cpu import causal_pixel_attention as cpu

CONTEXTS = (
    Raster(),
    Raster(prefix=5),
    Quadrant(),
    Quadrant(prefix=6),
    Neighbourhood(0),
    Neighbourhood(1),
    Neighbourhood(3),
    Neighbourhood(2, "raster"),
    Neighbourhood(3, "raster", prefix=7),
)
# None, one pixel, one row, one column, prime, oblong, whole tiles and more than one share of queries.
GRIDS = ((0, 3), (1, 1), (1, 41), (37, 1), (7, 7), (5, 29), (16, 16), (20, 18))
DTYPES = (torch.float32, torch.bfloat16)


def fit(context, grid):
    """The context, where the grid has as many pixels as its prefix."""
    if context.prefix > grid[0] * grid[1]:
        pytest.skip("the grid is smaller than the prefix")
    return context


def make_case(grid, dtype, batch=2, heads=2, width=24, seed=0):
    """q, k, v, views of a fused qkv, and a gradient of the output."""
    draw = torch.Generator().manual_seed(seed)
    pixels = grid[0] * grid[1]
    qkv = torch.randn(batch, pixels, 3, heads, width, generator=draw).to(dtype)
    return list(qkv.unbind(2)), torch.randn(batch, pixels, heads, width, generator=draw).to(dtype)


def sdpa(q, k, v, mask):
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask).transpose(
        1, 2
    )


def outcome(tensors, d_out, grid, context, backend, dtype):
    """The output and the gradients of q, k and v."""
    leaves = []
    for x in tensors:  # the views of a fused tensor keep their strides
        leaf = torch.empty_strided(x.shape, x.stride(), dtype=dtype).copy_(x)
        leaves.append(leaf.requires_grad_())
    if backend == "sdpa":
        out = sdpa(*leaves, context.window(grid).visible())
    else:
        out = ops.causal_pixel_attention(*leaves, grid, context, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out.to(dtype))]


@pytest.fixture(params=["avx512_bf16", "avx512", "avx2", "portable", "pytorch"])
def way(request, monkeypatch):
    """With each instruction set (where float32 is PyTorch's on a portable one), and without our kernel."""
    if request.param == "pytorch":
        monkeypatch.setattr(native, "attention_pays", lambda dtype: False)
        return request.param
    request.getfixturevalue("use_instruction_set")(request.param)
    return request.param


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16], ids=str)
def test_cpu_is_within_the_error_bound(grid, context, dtype, way, error_bound, poisoned_memory):
    tensors, d_out = make_case(grid, dtype)
    case = (tensors, d_out, grid, fit(context, grid))
    exact = outcome(*case, "reference", torch.float64)
    # Plain products keep the probabilities, and find a gradient of exactly zero where one key is seen.
    # PyTorch's flash kernel makes them again for the backward; it is the peer where it serves and in float32.
    flash = way == "pytorch" or dtype != torch.bfloat16
    peer = outcome(*case, "sdpa" if flash else "reference", dtype)
    ours = outcome(*case, "cpu", dtype)
    for name, a, e, p in zip(("out", "dq", "dk", "dv"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


@pytest.mark.parametrize("width", [1, 2, 7, 33, 72, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_head_width(width, dtype, way, error_bound):
    tensors, d_out = make_case((7, 9), dtype, width=width)
    case = (tensors, d_out, (7, 9), Neighbourhood(2, "raster", prefix=3))
    exact = outcome(*case, "reference", torch.float64)
    peer = outcome(*case, "sdpa" if dtype == torch.float32 else "reference", dtype)
    for a, e, p in zip(outcome(*case, "cpu", dtype), exact, peer, strict=True):
        error_bound(a, e, p, f"width {width}")


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_reference_is_sdpa_with_the_boolean_mask(context):
    (q, k, v), _ = make_case((5, 7), torch.float64)
    torch.testing.assert_close(
        ops.causal_pixel_attention(q, k, v, (5, 7), context, backend="reference"),
        sdpa(q, k, v, context.window((5, 7)).visible()),
    )


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_leaks(context, dtype, way):
    grid = (6, 7)
    (q, k, v), _ = make_case(grid, dtype)
    visible = context.window(grid).visible()
    before = ops.causal_pixel_attention(q, k, v, grid, context, backend="cpu")
    for pixel in range(grid[0] * grid[1]):
        other_k, other_v = k.clone(), v.clone()
        other_k[:, pixel] = 3 - other_k[:, pixel]
        other_v[:, pixel] = 1e3
        after = ops.causal_pixel_attention(q, other_k, other_v, grid, context, backend="cpu")
        same = (before == after).flatten(2).all(2).all(0)
        assert torch.equal(same, ~visible[:, pixel])


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_gradient_leaks(context, dtype, way):
    grid = (6, 7)
    (q, k, v), d_out = make_case(grid, dtype)
    visible = context.window(grid).visible()
    for pixel in range(0, grid[0] * grid[1], 5):
        asked = torch.zeros_like(d_out)
        asked[:, pixel] = d_out[:, pixel]
        _, d_q, d_k, d_v = outcome([q, k, v], asked, grid, context, "cpu", dtype)
        assert bool((d_q.flatten(2).abs().sum(2)[:, torch.arange(len(visible)) != pixel] == 0).all())
        for gradient in (d_k, d_v):
            assert bool((gradient[:, ~visible[pixel]] == 0).all())
        assert bool((d_v[:, visible[pixel]] != 0).any())


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neither_threads_nor_repetition_change_a_bit(context, dtype, way):
    if way == "pytorch":
        pytest.skip("PyTorch's kernel promises nothing of the kind")
    tensors, d_out = make_case((20, 18), dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(outcome(tensors, d_out, (20, 18), context, "cpu", dtype))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("scale", [-5.0, 0.0, 7.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_scale(scale, dtype, way, error_bound):
    (q, k, v), _ = make_case((6, 7), dtype)

    def run(backend, to):
        tensors = [x.to(to) for x in (q, k, v)]
        return ops.causal_pixel_attention(*tensors, (6, 7), Quadrant(), scale=scale, backend=backend)

    error_bound(run("cpu", dtype), run("reference", torch.float64), run("reference", dtype))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("context", [Raster(), Quadrant(prefix=2), Neighbourhood(1, "raster")], ids=str)
def test_gradcheck(backend, context):
    tensors, _ = make_case((3, 3), torch.float64, 1, 1, 4)
    assert torch.autograd.gradcheck(
        lambda *x: ops.causal_pixel_attention(*x, (3, 3), context, backend=backend),
        [x.detach().clone().requires_grad_() for x in tensors],
        atol=1e-6,
    )


@pytest.mark.parametrize("grid", [(4, 5), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(grid, dtype, way):
    tensors, _ = make_case(grid, dtype)
    inputs = [x.detach().clone().requires_grad_() for x in tensors]
    window = Neighbourhood(2).window(grid)
    library.opcheck(torch.ops.imagen_fast.causal_pixel_attention_cpu, (*inputs, *window, 0.2))


def test_compiles_in_one_graph():
    tensors, d_out = make_case((4, 5), torch.float32)
    inputs = [x.detach().clone().requires_grad_() for x in tensors]

    def attend(q, k, v):
        return ops.causal_pixel_attention(q, k, v, (4, 5), Quadrant())

    out = torch.compile(attend, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(out, attend(*inputs))
    assert all(x.abs().sum() > 0 for x in torch.autograd.grad(out, inputs, d_out))


def test_autocast_computes_in_its_type():
    (q, k, v), _ = make_case((4, 5), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.causal_pixel_attention(q, k, v, (4, 5), Raster()).dtype == torch.bfloat16


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("grid", [(5, 7), (1, 9), (9, 1)], ids=str)
def test_operations_are_counted_of_the_pairs_that_are_seen(context, grid):
    tensors, d_out = make_case(grid, torch.float32, 2, 3, 8)
    inputs = [x.detach().clone().requires_grad_() for x in tensors]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(ops.causal_pixel_attention(*inputs, grid, context, backend="cpu"), inputs, d_out)
    product = 2 * 2 * 3 * 8 * int(context.window(grid).visible().sum())
    assert counter.get_total_flops() == (2 + 5) * product


def test_the_native_kernel_serves_what_it_can(monkeypatch):
    monkeypatch.setattr(native, "attention_pays", lambda dtype: dtype in DTYPES)
    short, long = (16, 16), (64, 64)
    for dtype in DTYPES:
        assert cpu.plan(dtype, 64, Raster().window(short)) == "native"
        assert cpu.plan(dtype, 64, Quadrant().window(long)) == "native"
        assert cpu.plan(dtype, 33, Raster().window(short)) == "flash"
    assert cpu.plan(torch.float16, 64, Raster().window(short)) == "flash"
    assert cpu.plan(torch.bfloat16, 64, Raster().window(long)) == "native"
    assert cpu.plan(torch.float32, 64, Raster().window(long)) == "flash"
    assert cpu.plan(torch.float32, 64, Raster(prefix=5).window(long)) == "native"


def test_forced_backend_raises_its_reason():
    q = torch.randn(1, 4, 1, 32)
    with pytest.raises(BackendUnavailable, match="causal_pixel_attention: the triton back-end cannot serve"):
        ops.causal_pixel_attention(q, q, q, (2, 2), Raster(), backend="triton")


@pytest.mark.parametrize(
    ("shapes", "grid", "message"),
    [
        (((1, 4, 32),) * 3, (2, 2), "must be"),
        (((1, 4, 1, 32), (1, 4, 2, 32), (1, 4, 2, 32)), (2, 2), "of one shape"),
        (((1, 5, 1, 32),) * 3, (2, 2), "a grid of 2x2 has 4 pixels"),
        (((1, 4, 1, 32),) * 3, (-2, -2), "the grid must be"),
    ],
)
def test_bad_input_is_one_sentence(shapes, grid, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.causal_pixel_attention(*(torch.randn(s) for s in shapes), grid, Raster())
    assert "\n" not in str(caught.value)


def test_bad_types_are_one_sentence():
    q = torch.randn(1, 4, 1, 32)
    with pytest.raises(InvalidInput, match="share a type"):
        ops.causal_pixel_attention(q, q.half(), q, (2, 2), Raster())
    with pytest.raises(InvalidInput, match="floating point"):
        ops.causal_pixel_attention(q.int(), q.int(), q.int(), (2, 2), Raster(), scale=1.0)
