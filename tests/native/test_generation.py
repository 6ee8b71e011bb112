from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import Neighbourhood, Quadrant, Raster
from imagen_fast.ops.generation import Layer, Norm, PreNormBlock, step_block, step_views


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 5), (64, 31), (129, 33), (300, 96)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_packed_linear_layer(instruction_set, rows, inputs, outputs, with_bias, poisoned_memory):
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if with_bias else None
    wide = None if bias is None else bias.double()
    error = (native.PackedLinear(weight, bias)(x) - linear(x.double(), weight.double(), wide)).abs()
    # A rounding for each term of the longest partial sum, for each of those, and for the bias.
    roundings = min(inputs, 32) + inputs // 32 + 2
    size = linear(x.double().abs(), weight.double().abs(), None if wide is None else wide.abs())
    assert bool((error <= torch.finfo(torch.float32).eps / 2 * roundings * size).all())


def test_a_row_does_not_depend_on_the_others(instruction_set):
    x, layer = torch.randn(40, 300), native.PackedLinear(torch.randn(130, 300), torch.randn(130))
    together = layer(x)
    for size in (1, 3, 8, 17):
        assert torch.equal(torch.cat([layer(part) for part in x.split(size)]), together)


# Sides that no block of 4 x 4 or 16 divides, and some that they do.
WINDOWS = {
    "raster": Raster().window((5, 9)),
    "raster with a prefix": Raster(prefix=11).window((5, 9)),
    "quadrant": Quadrant().window((9, 10)),
    "quadrant with a prefix": Quadrant(prefix=13).window((9, 10)),
    "quadrant of whole blocks": Quadrant().window((8, 12)),
    "neighbourhood": Neighbourhood(2).window((7, 11)),
    "one row": Quadrant().window((1, 40)),
}


def in_steps(window):
    """The raster numbers of the tokens of each step: the prefix at once, then, where one sees nothing to its
    right, by anti-diagonals, else two at a time. The latter see each other one way."""
    places = torch.arange(window.height * window.width)
    known, rest = places[: window.prefix], places[window.prefix :]
    time = rest // 2 if window.right else rest // window.width + rest % window.width
    return [known, *(rest[time == moment] for moment in time.unique())]


def attend(window, qkv, steps):
    """Step by step, in raster order again."""
    out = torch.full_like(qkv[:, :, 0], torch.nan)
    cache = native.StepCache(len(qkv), window, *qkv.shape[-2:])
    for places in steps:
        q, k, v = qkv[:, places].unbind(2)  # views, as those of a fused projection
        out[:, places] = cache.attend(q, k, v, native.StepView(window, places))
    return out


@pytest.mark.parametrize("width", [3, 8, 20, 32, 64])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_attention_to_what_is_kept(instruction_set, window, width, error_bound, poisoned_memory):
    torch.manual_seed(0)
    qkv = torch.randn(2, window.height * window.width, 3, 3, width)
    exact, plain = (
        scaled_dot_product_attention(
            *qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind(), attn_mask=window.visible()
        ).transpose(1, 2)
        for dtype in (torch.float64, torch.float32)
    )
    error_bound(attend(window, qkv, in_steps(window)), exact, plain)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_a_token_does_not_depend_on_the_others_of_its_step(instruction_set, window):
    qkv = torch.randn(2, window.height * window.width, 3, 3, 20)
    first, *rest = in_steps(window)
    one_by_one = [first, *torch.arange(len(first), qkv.shape[1]).split(1)]
    assert torch.equal(attend(window, qkv, [first, *rest]), attend(window, qkv, one_by_one))


@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_an_image_does_not_depend_on_the_others(instruction_set, window):
    qkv, steps = torch.randn(5, window.height * window.width, 3, 4, 16), in_steps(window)
    together = attend(window, qkv, steps)
    for image in range(5):
        assert torch.equal(attend(window, qkv[image : image + 1], steps)[0], together[image])


def test_no_number_of_threads_changes_a_bit(thread_count):
    """Work enough to wake them all."""
    window = Quadrant().window((16, 16))
    qkv, made = torch.randn(16, 256, 3, 4, 64), []
    weights, blocks = block("layer", "gelu", heads=4, width=64, hidden=1024), []
    x, steps = torch.randn(8, 256, 256), [places for places in in_steps(window) if len(places)]
    for threads in (1, 2, 5):
        thread_count(threads)
        made.append(attend(window, qkv, in_steps(window)))
        blocks.append(blocks_output(weights, window, x, steps))
    for each in (made, blocks):
        assert torch.equal(each[0], each[1])
        assert torch.equal(each[0], each[2])


def block(norm, activation, heads=2, width=12, hidden=50, dtype=torch.float32):
    torch.manual_seed(0)
    dim = heads * width

    def normal(*shape):
        return torch.randn(shape).to(dtype)

    def layer(outputs, inputs):
        return Layer(normal(outputs, inputs) / inputs**0.5, normal(outputs))

    def norm_of():
        return Norm(1 + normal(dim) / 4, normal(dim) if norm == "layer" else None, 1e-5)

    return PreNormBlock(
        norm_of(),
        layer(3 * dim, dim),
        layer(dim, dim),
        norm_of(),
        layer(hidden, dim),
        layer(dim, hidden),
        heads,
        activation,
    )


def blocks_output(weights, window, x, steps):
    run = step_block(weights, len(x), window)
    views = step_views(x, window, steps)
    out = torch.full_like(x, torch.nan)
    for places, view in zip(steps, views, strict=True):
        out[:, places] = run(x[:, places], view)
    return out


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
def test_a_block(instruction_set, window, norm, activation):
    """As PyTorch computes it in float64, which no native kernel takes, to float32's roundings."""
    x = 3 * torch.randn(2, window.height * window.width, 24)
    steps = [places for places in in_steps(window) if len(places)]
    exact = blocks_output(block(norm, activation, dtype=torch.float64), window, x.double(), steps)
    error = blocks_output(block(norm, activation), window, x, steps) - exact
    assert float(error.abs().max()) < 20 * torch.finfo(torch.float32).eps * float(exact.abs().max())


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_activation(instruction_set, activation):
    """Of values of every size, each to its own precision: a block in which nothing else happens."""
    small = torch.logspace(-30, 0, 41)
    values = torch.cat([torch.linspace(-12, 12, 241), small, -small])
    dim = len(values)
    nothing, norm = Layer(torch.zeros(dim, dim), None), Norm(torch.ones(dim), None, 1e-5)
    weights = PreNormBlock(
        norm,
        Layer(torch.zeros(3 * dim, dim), None),
        nothing,
        norm,
        nothing._replace(bias=values),
        Layer(torch.eye(dim), None),
        1,
        activation,
    )
    window, first = Raster().window((1, 1)), torch.tensor([0])
    made = blocks_output(weights, window, torch.zeros(1, 1, dim), [first]).double().flatten()
    x = values.double()
    # Not PyTorch's GELU, which is 0 where 1 + erf(x / sqrt(2)) is.
    exact = x / 2 * torch.erfc(-x / 2**0.5) if activation == "gelu" else x * torch.sigmoid(1.702 * x)
    # Of an exponential the error grows with what it is taken of.
    assert bool(((made - exact).abs() <= torch.finfo(torch.float32).eps * (8 + x**2) * exact.abs()).all())


def test_a_block_computes_each_token_by_itself(instruction_set):
    weights, window = block("layer", "gelu"), WINDOWS["quadrant"]
    x, steps = torch.randn(5, window.height * window.width, 24), in_steps(window)
    together = blocks_output(weights, window, x, steps)
    for image in range(5):
        assert torch.equal(blocks_output(weights, window, x[image : image + 1], steps)[0], together[image])
    first, *rest = steps
    one_by_one = [first, *torch.cat(rest).split(1)]
    assert torch.equal(blocks_output(weights, window, x, one_by_one), together)


def test_bad_input():
    window = Quadrant().window((2, 2))
    cache, view = native.StepCache(1, window, 2, 8), native.StepView(window, torch.tensor([1, 2]))
    x = torch.zeros(1, 2, 2, 8)
    with pytest.raises(InvalidInput, match="places must be 0 to 3"):
        native.StepView(window, torch.tensor([1, 4]))
    with pytest.raises(InvalidInput, match=r"k must be float32 \[1, 2, 2, 8\]"):
        cache.attend(x, x[:, :1], x, view)
    with pytest.raises(InvalidInput, match=r"the view is of .*, the cache of"):
        cache.attend(x, x, x, native.StepView(Quadrant().window((3, 2)), torch.tensor([1, 2])))
    with pytest.raises(InvalidInput, match="x must have 8 values a row, not 3"):
        native.PackedLinear(torch.zeros(2, 8), None)(torch.zeros(1, 3))
    weights = block("layer", "gelu", heads=2, width=8)
    run, place = step_block(weights, 1, window), native.StepView(window, torch.tensor([1]))
    with pytest.raises(InvalidInput, match=r"x must be \[1, 1, 16\], not \[1, 2, 16\]"):
        run(torch.zeros(1, 2, 16), place)
    with pytest.raises(InvalidInput, match="proj must make 16 values of 16, not 16 of 3"):
        step_block(replace(weights, proj=Layer(torch.zeros(16, 3), None)), 1, window)
    with pytest.raises(InvalidInput, match="norm2 must have 16 values, not 3"):
        step_block(replace(weights, norm2=Norm(torch.ones(3), None, 1e-5)), 1, window)
    with pytest.raises(InvalidInput, match="bias must have 16 values, not 3"):
        step_block(replace(weights, proj=Layer(torch.zeros(16, 16), torch.zeros(3))), 1, window)
    with pytest.raises(InvalidInput, match=r"activation must be one of \['gelu', 'quick_gelu'\], not 'none'"):
        replace(weights, activation="none")
    with pytest.raises(InvalidInput, match="3 heads do not divide a width of 16"):
        replace(weights, heads=3)
    with pytest.raises(InvalidInput, match="a step has no gradients"):
        run(torch.zeros(1, 1, 16, requires_grad=True), place)
