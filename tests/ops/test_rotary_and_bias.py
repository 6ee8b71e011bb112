"""The two options of masked-patch attention that look up where on the grid a token lies."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from imagen_fast import ops
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import Rotary, Rows, Visible

GRID = 29  # places; a few more than the 23 tokens of a case


def with_places(context, q, k, seed=0):
    """The context of a case, with places for the rows of packed tensors: those of an image differ."""
    draw = torch.Generator().manual_seed(seed)

    def placed(rows, x):
        if x.dim() == 4:
            return rows
        order = [torch.randperm(GRID, generator=draw)[:n] for n in rows.spans[:, 1].tolist()]
        places = torch.cat([*order, torch.zeros(0, dtype=torch.long)]).int()
        return Rows(rows.longest, rows.spans, rows.index, rows.tokens, places)

    queries, keys = (
        (Rows(q.shape[1]), Rows(k.shape[1])) if context is None else (context.queries, context.keys)
    )
    # Self-attention has one list of rows, and so one list of places.
    if queries is keys:
        return Visible(*(placed(queries, q),) * 2)
    return Visible(placed(queries, q), placed(keys, k))


def options_of(options, heads, width, dtype, seed=0):
    draw = torch.Generator().manual_seed(seed)
    angle = 6 * torch.rand(GRID, width // 2, generator=draw)
    rotary = Rotary(angle.cos(), angle.sin()) if "rotary" in options else None
    bias = torch.randn(heads, GRID, GRID, generator=draw).to(dtype) if "bias" in options else None
    return rotary, bias


def outcome(q, k, v, context, rotary, bias, backend, dtype, weight):
    inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    if bias is not None:
        inputs.append(bias.detach().to(dtype).requires_grad_())
    options = {"rotary": rotary, "bias": None if bias is None else inputs[3], "backend": backend}
    out = ops.masked_patch_attention(*inputs[:3], context, **options)
    return out, *torch.autograd.grad(out, inputs, weight.to(dtype))


@pytest.mark.parametrize("options", ["rotary", "bias", "rotary and bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_cpu_is_within_the_error_bound(
    use, dtype, options, make_attention_case, error_bound, poisoned_memory
):
    (q, k, v), context = make_attention_case(use, dtype)
    context = with_places(context, q, k)
    case = (q, k, v, context, *options_of(options, q.shape[-2], q.shape[-1], dtype))
    weight = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact, peer, ours = (
        outcome(*case, backend, to, weight)
        for backend, to in (("reference", torch.float64), ("reference", dtype), ("cpu", dtype))
    )
    names = ("out", "dq", "dk", "dv", "d_bias")[: len(ours)]
    for name, *values in zip(names, ours, exact, peer, strict=True):
        error_bound(*values, name)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradcheck(use, backend, make_attention_case):
    (q, k, v), context = make_attention_case(use, torch.float64, 2, 5, 1, 8)
    context = with_places(context, q, k)
    rotary, bias = options_of("rotary and bias", 1, 8, torch.float64)
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v, bias)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, bias: ops.masked_patch_attention(
            q, k, v, context, rotary=rotary, bias=bias, backend=backend
        ),
        inputs,
        eps=1e-6,
        atol=1e-6,
    )


def test_the_bias_is_added_to_the_scaled_scores():
    q, k, v = torch.randn(2, 9, 3, 2, 32, dtype=torch.float64).unbind(2)
    bias = torch.randn(2, 9, 9, dtype=torch.float64)
    wanted = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=bias, scale=0.3)
    out = ops.masked_patch_attention(q, k, v, scale=0.3, bias=bias, backend="reference")
    torch.testing.assert_close(out, wanted.transpose(1, 2))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_packed_rows_at_their_places_equal_rows_in_place(backend):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.rand(4, GRID, generator=draw) < 0.5
    q, k, v = torch.randn(4, GRID, 3, 2, 32, generator=draw).unbind(2)
    rotary, bias = options_of("rotary and bias", 2, 32, torch.float32)
    options = {"rotary": rotary, "bias": bias, "backend": backend}
    in_place = ops.masked_patch_attention(q, k, v, Visible.in_place(hidden, "visible"), **options)
    lengths, places = (~hidden).sum(1), (~hidden).nonzero()[:, 1]
    packed = [x[~hidden] for x in (q, k, v)]
    out = ops.masked_patch_attention(*packed, Visible.packed(lengths, places=places), **options)
    torch.testing.assert_close(out, in_place[~hidden])
    cross = Visible.cross(lengths, lengths, query_places=places, key_places=places)
    torch.testing.assert_close(ops.masked_patch_attention(*packed, cross, **options), out)


def test_scores_of_turned_rows_depend_on_the_way_between_them():
    """Turning all of an axial grid's patches by one more step changes no score between patches."""
    rotary = Rotary.axial((6, 6), 32, prefix=0)
    x = torch.randn(2, 32, dtype=torch.float64).expand(36, 2, 32)[None]
    scores = torch.einsum("bmhd,bnhd->bhmn", *(ops.rotary.turn(x, rotary, None),) * 2).unflatten(-1, (6, 6))
    scores = scores.unflatten(2, (6, 6))  # [1, H, y, x, y', x']
    torch.testing.assert_close(
        scores[:, :, :5, :5, :5, :5], scores[:, :, 1:, 1:, 1:, 1:], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
def test_axial_is_the_table_of_dinov3(grid):
    dinov3 = pytest.importorskip("transformers.models.dinov3_vit.modeling_dinov3_vit")
    config = dinov3.DINOv3ViTConfig(
        hidden_size=128, num_attention_heads=2, image_size=(16 * grid[0], 16 * grid[1]), rope_theta=100.0
    )
    embedding = dinov3.DINOv3ViTRopePositionEmbedding(config).eval()
    cos, sin = embedding(torch.zeros(1, 3, 16 * grid[0], 16 * grid[1]))
    ours = Rotary.axial(grid, 64, prefix=5)
    for table, theirs, before in ((ours.cos, cos, 1), (ours.sin, sin, 0)):
        assert torch.equal(table[5:].tile(2), theirs)
        assert bool((table[:5] == before).all())
    # And turning is theirs: tokens before the patches stay as they are.
    q = torch.randn(1, 2, 5 + grid[0] * grid[1], 64)
    wanted, _ = dinov3.apply_rotary_pos_emb(q, q, cos, sin)
    torch.testing.assert_close(ops.rotary.turn(q.transpose(1, 2), ours, None).transpose(1, 2), wanted)


def test_axial_normalises_by_either_side():
    assert Rotary.axial((2, 2), 196).cos.shape == (5, 98)  # 1 / (4 / 196) is a little more than 49
    tall = {word: Rotary.axial((8, 4), 16, prefix=0, normalise=word) for word in ("separate", "min", "max")}
    square = Rotary.axial((8, 8), 16, prefix=0)
    column = torch.arange(8) * 4  # the patches at x = 0
    torch.testing.assert_close(tall["max"].cos[column, :4], square.cos[torch.arange(8) * 8, :4])
    torch.testing.assert_close(tall["min"].cos[column[:4], 4:], tall["separate"].cos[column[:4], 4:])
    assert not torch.equal(tall["min"].cos[:, :4], tall["separate"].cos[:, :4])
    for bad in (
        lambda: Rotary.axial((4, 4), 18),
        lambda: Rotary.axial((0, 4), 16),
        lambda: Rotary.axial((4, 4), 16, prefix=-1),
        lambda: Rotary.axial((4, 4), 16, normalise="mean"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput):
            bad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_hidden_tokens_change_no_bit_and_no_nan_comes_back(dtype):
    hidden = torch.rand(3, 23, generator=torch.Generator().manual_seed(0)) < 0.5
    q, k, v = torch.randn(3, 23, 3, 2, 32).to(dtype).unbind(2)
    rotary, bias = options_of("rotary and bias", 2, 32, dtype)
    context = Visible.in_place(hidden, "visible")

    def run(poison):
        inputs = [x.masked_fill(hidden[..., None, None], poison).requires_grad_() for x in (q, k, v)]
        inputs.append(bias.clone().requires_grad_())
        out = ops.masked_patch_attention(*inputs[:3], context, rotary=rotary, bias=inputs[3])
        return out, *torch.autograd.grad(out[~hidden].sum(), inputs)

    for clean, poisoned in zip(run(0.5), run(float("nan")), strict=True):
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("use", ["all", "visible", "hidden", "packed"])
def test_compiles_in_one_graph(use):
    shape, context = (2, 9, 3, 2, 32), None
    if use == "packed":
        shape, context = (9, 3, 2, 32), Visible.packed(torch.tensor([4, 5]), 5, torch.arange(9) % 5)
    elif use != "all":
        context = Visible.in_place(torch.rand(2, 9, generator=torch.Generator().manual_seed(0)) < 0.5, use)
    q, k, v = (x.contiguous().requires_grad_() for x in torch.randn(shape).unbind(-3))
    rotary, bias = options_of("rotary and bias", 2, 32, torch.float32)
    bias.requires_grad_()

    def step(q, k, v, bias):
        turned = ops.masked_patch_attention(q, k, v, context, rotary=rotary)
        return turned + ops.masked_patch_attention(q, k, v, context, bias=bias)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    out, wanted = compiled(q, k, v, bias), step(q, k, v, bias)
    torch.testing.assert_close(out, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), (q, k, v, bias)),
        torch.autograd.grad(wanted.sum(), (q, k, v, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_a_bias_is_bitwise_repeatable():
    """With more of it than one thread adds up."""
    hidden = torch.rand(16, 49, generator=torch.Generator().manual_seed(0)) < 0.5
    q, k, v = torch.randn(16, 49, 3, 12, 32).unbind(2)
    bias = torch.randn(12, 49, 49, requires_grad=True)

    def run():
        out = ops.masked_patch_attention(q, k, v, Visible.in_place(hidden), bias=bias)
        return torch.autograd.grad(out.square().sum(), bias)[0]

    first = run()
    assert all(torch.equal(first, run()) for _ in range(10))


def test_autocast_leaves_tables_and_bias_alone():
    q, k, v = torch.randn(2, 9, 3, 2, 32).unbind(2)
    rotary, bias = options_of("rotary and bias", 2, 32, torch.float32)
    bias.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.masked_patch_attention(q, k, v, rotary=rotary, bias=bias)
    assert out.dtype == torch.bfloat16
    assert torch.autograd.grad(out.float().sum(), bias)[0].dtype == torch.float32


def packed(places):
    return Visible.packed(torch.tensor([4, 5]), places=places)


@pytest.mark.parametrize(
    ("shape", "context", "rotary", "bias", "message"),
    [
        ((1, 9, 2, 32), None, (8, 16), None, "rotary has 8 places for q, .* there are 9 tokens"),
        ((1, 9, 2, 32), None, (9, 8), None, r"must be \[P, D/2\] for a head width of 32"),
        ((1, 9, 2, 32), None, None, (1, 9, 9), r"bias must be floating point \[2, P, P'\]"),
        ((1, 9, 2, 32), None, None, (2, 9, 7), "bias has 7 places for k"),
        ((9, 2, 32), lambda: packed(None), (9, 16), None, "packed rows need places"),
        ((9, 2, 32), lambda: packed(torch.arange(9)), (8, 16), None, "there is a place 8"),
        ((9, 2, 32), lambda: packed(torch.arange(9) - 1), None, (2, 9, 9), "there is a place -1"),
        ((9, 2, 32), lambda: packed(torch.arange(8)), (9, 16), None, "places for 8 rows"),
        ((9, 2, 32), lambda: packed(torch.arange(9) // 2), None, (2, 9, 9), "may share a place"),
    ],
)
def test_what_does_not_fit_is_one_sentence(shape, context, rotary, bias, message):
    q = torch.randn(shape)
    rotary = None if rotary is None else Rotary(torch.ones(rotary), torch.zeros(rotary))
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.masked_patch_attention(q, q, q, context and context(), rotary=rotary, bias=bias)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="places must be integers"):
        packed(torch.zeros(9))


def test_rotary_tables_are_single_precision():
    q, table = torch.randn(1, 4, 1, 32), torch.zeros(4, 16)
    with pytest.raises(InvalidInput, match="must be float32 of one shape"):
        ops.masked_patch_attention(q, q, q, rotary=Rotary(table.double(), table.double()))
