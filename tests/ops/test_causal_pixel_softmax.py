from __future__ import annotations

import pytest
import torch
from torch import library
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import ops
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops import Neighbourhood, Quadrant, Raster

CONTEXTS = (
    Raster(),
    Raster(prefix=1),
    Quadrant(),
    Quadrant(prefix=1),
    Neighbourhood(0),
    Neighbourhood(1),
    Neighbourhood(2, "raster"),
    Neighbourhood(3, "raster", prefix=1),
)
GRIDS = ((1, 1), (1, 41), (37, 1), (7, 7), (3, 23), (16, 16))
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(params=["avx512", "avx2", "portable"], autouse=True)
def instructions(request, use_instruction_set):
    use_instruction_set(request.param)


def make_case(grid, dtype, layers=3):
    draw = torch.Generator().manual_seed(0)
    pixels = grid[0] * grid[1]
    scores, d_p = (4 * torch.randn(2, layers, pixels, pixels, generator=draw)).to(dtype)
    return scores, d_p


def outcome(scores, d_p, grid, context, backend, dtype):
    scores = scores.detach().to(dtype, copy=True).requires_grad_()
    p = ops.causal_pixel_softmax(scores, grid, context, backend=backend)
    return p.detach(), torch.autograd.grad(p, scores, d_p.to(dtype))[0]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_is_within_the_error_bound(grid, context, dtype, error_bound, poisoned_memory):
    case = (*make_case(grid, dtype), grid, context)
    exact = outcome(*case, "reference", torch.float64)
    peer = outcome(*case, "reference", dtype)
    for name, a, e, p in zip(("p", "d_scores"), outcome(*case, "cpu", dtype), exact, peer, strict=True):
        error_bound(a, e, p, name)


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_entries_that_are_not_seen_change_nothing(context, dtype, backend):
    grid = (5, 7)
    scores, d_p = make_case(grid, dtype)
    hidden = ~context.window(grid).visible()

    def run(poison):
        given = scores.masked_fill(hidden, poison).requires_grad_()
        p = ops.causal_pixel_softmax(given, grid, context, backend=backend)
        # PyTorch's own backward multiplies the gradient of every entry by its probability.
        arriving = d_p.masked_fill(hidden, poison if backend == "cpu" else 1.0)
        return p.detach(), torch.autograd.grad(p, given, arriving)[0]

    clean = run(0.5)
    for poison in (float("nan"), float("inf"), -1e30):
        assert all(torch.equal(a, b) for a, b in zip(clean, run(poison), strict=True))
    for x in clean:
        assert bool((x[:, hidden] == 0).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_of_minus_infinity_and_nan_are_what_pytorch_makes_of_them(dtype):
    scores, _ = make_case((5, 7), dtype)
    scores[0, 30, 3] = -float("inf")
    scores[1, 20, 11] = float("nan")
    ours, wanted = (
        ops.causal_pixel_softmax(scores, (5, 7), Raster(), backend=b) for b in ("cpu", "reference")
    )
    assert ours[0, 30, 3] == 0
    assert bool(ours[1, 20, :21].isnan().all())
    finite = ~wanted.isnan()
    assert bool(ours[finite].isfinite().all())
    torch.testing.assert_close(ours[finite], wanted[finite])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_scores_do_not_overflow(dtype):
    scores = torch.tensor([[1e4, 0.0], [1e4, 1e4]], dtype=dtype)
    p = ops.causal_pixel_softmax(scores, (1, 2), Raster(), backend="cpu")
    assert p.tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("shape", [(35, 35), (2, 35, 35), (2, 3, 35, 35), (0, 35, 35)])
def test_any_leading_dimensions(shape):
    scores = torch.randn(shape)
    p = ops.causal_pixel_softmax(scores, (5, 7), Quadrant(), backend="cpu")
    torch.testing.assert_close(p, ops.causal_pixel_softmax(scores, (5, 7), Quadrant(), backend="reference"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_strides(dtype):
    scores, d_p = make_case((5, 7), dtype)
    wanted = outcome(scores, d_p, (5, 7), Quadrant(), "cpu", dtype)
    wide = torch.zeros(3, 35, 50, dtype=dtype)
    wide[..., 3:38] = scores
    for view in (wide[..., 3:38], scores.transpose(1, 2).contiguous().transpose(1, 2)):
        given = view.requires_grad_()
        p = ops.causal_pixel_softmax(given, (5, 7), Quadrant(), backend="cpu")
        d_scores = torch.autograd.grad(p, given, d_p.transpose(1, 2).contiguous().transpose(1, 2))[0]
        assert torch.equal(p, wanted[0])
        assert torch.equal(d_scores, wanted[1])


def test_no_pixels():
    scores = torch.zeros(2, 0, 0, requires_grad=True)
    p = ops.causal_pixel_softmax(scores, (0, 3), Raster(), backend="cpu")
    assert p.shape == (2, 0, 0)
    assert torch.autograd.grad(p.sum(), scores)[0].shape == (2, 0, 0)


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_neither_threads_nor_repetition_change_a_bit(context):
    case = (*make_case((7, 9), torch.float32), (7, 9), context, "cpu", torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(outcome(*case))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck():
    scores = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s: ops.causal_pixel_softmax(s, (2, 3), Quadrant(prefix=2), backend="reference"), scores
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    scores = make_case((2, 3), dtype)[0].requires_grad_()
    window = Neighbourhood(1, "raster").window((2, 3))
    library.opcheck(torch.ops.imagen_fast.causal_pixel_softmax_cpu, (scores, *window))


def test_compiles_in_one_graph():
    scores = torch.randn(2, 6, 6)
    compiled = torch.compile(
        lambda s: ops.causal_pixel_softmax(s, (2, 3), Quadrant()), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(scores), ops.causal_pixel_softmax(scores, (2, 3), Quadrant()))


def test_operations_are_counted():
    with FlopCounterMode(display=False) as counter:
        ops.causal_pixel_softmax(torch.randn(2, 6, 6), (2, 3), Quadrant(), backend="cpu")
    assert counter.get_total_flops() == 0  # by convention only matrix products count


def test_bad_input_is_one_sentence():
    with pytest.raises(InvalidInput, match=r"\[\.\.\., 6, 6\] for a grid of 2x3, not .* \(6, 5\)") as caught:
        ops.causal_pixel_softmax(torch.randn(6, 5), (2, 3), Raster())
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="floating point"):
        ops.causal_pixel_softmax(torch.zeros(6, 6, dtype=torch.int64), (2, 3), Raster())
    with pytest.raises(BackendUnavailable, match="float32 and bfloat16, and these"):
        ops.causal_pixel_softmax(torch.zeros(6, 6).half(), (2, 3), Raster(), backend="cpu")
