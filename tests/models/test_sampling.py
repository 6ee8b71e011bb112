from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.models import PixelConfig, PixelTransformer
from imagen_fast.models.sampling import Choice, Generation, generate, steps
from imagen_fast.ops import Neighbourhood, Quadrant, Raster

CONTEXTS = (
    Raster(),
    Quadrant(),
    Neighbourhood(1),
    Neighbourhood(3),
    Raster(prefix=5),
    Quadrant(prefix=8),
)
KINDS = {
    "palette": {"colours": 40},
    "gray": {"channels": 1, "levels": 17},
    "rgb patches mixture": {"levels": 8, "patch_size": 2, "head": "mixture", "mixtures": 3},
}


def build(context, kind="palette", size=(6, 5)):
    torch.manual_seed(0)
    side = KINDS[kind].get("patch_size", 1)
    config = PixelConfig(
        image_size=(size[0] * side, size[1] * side),
        embed_dim=16,
        heads=2,
        depth=3,
        context=context,
        **KINDS[kind],
    )
    model = PixelTransformer(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def given(model, images, seed=1):
    c = model.config
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, c.choices, (images, c.tokens, c.values), generator=draw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_an_anti_diagonal_at_a_time_equals_pixel_by_pixel(context, kind):
    model = build(context, kind)
    known = {"given": given(model, 3), "known": context.prefix}
    at_once = generate(model, 3, seed=5, **known)
    assert torch.equal(at_once, generate(model, 3, seed=5, one_by_one=True, **known))
    assert not torch.equal(at_once, generate(model, 3, seed=6, **known))


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_the_same_seed_gives_the_same_picture_at_any_batch_size(context):
    model = build(context)
    whole, known = given(model, 7), context.prefix
    together = generate(model, 7, given=whole, known=known, seed=3)
    for size in (1, 2, 5):
        parts = [
            generate(model, len(part), given=part, known=known, seed=3, first=size * number)
            for number, part in enumerate(whole.split(size))
        ]
        assert torch.equal(torch.cat(parts), together)


@torch.no_grad()
def test_a_step_changes_nothing_of_the_next():
    """A block may overwrite its input: never the model's own positions, nor what the neighbours are."""
    model = build(Quadrant())
    state = Generation(model, given(model, 2))
    kept = [state.parts, *state.positions]
    before = [x.clone() for x in kept]
    first = state.tokens(0)
    assert torch.equal(state.tokens(0), first)
    assert all(torch.equal(x, y) for x, y in zip(kept, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "without native kernels"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@torch.no_grad()
def test_cached_and_uncached_tokens_are_equal(context, kind, dtype):
    model = build(context, kind).to(dtype)
    values = given(model, 2)
    uncached = model.forward_features(values)
    state = Generation(model, values, context.prefix)
    for step, places in enumerate(state.steps):
        torch.testing.assert_close(state.tokens(step), uncached[:, places], rtol=0, atol=1e-4)
        state.know(step, values[:, places])


@pytest.mark.skipif(not native.available(), reason="only native kernels promise it")
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@torch.no_grad()
def test_a_token_is_the_same_bit_by_bit_whatever_is_computed_with_it(context):
    model = build(context, size=(9, 11))
    values, known = given(model, 2), context.prefix

    def tokens(one_by_one):
        state = Generation(model, values.clone(), known, one_by_one)
        found = torch.full((2, model.config.tokens, model.config.embed_dim), torch.nan)
        for step, places in enumerate(state.steps):
            found[:, places] = state.tokens(step)
            state.know(step, values[:, places])
        return found

    assert torch.equal(tokens(one_by_one=False), tokens(one_by_one=True))


def test_how_many_steps_an_image_takes():
    def count(context, known=0):
        config = build(context, size=(9, 7)).config
        order = list(steps(config, known))
        assert sorted(torch.cat(order).tolist()) == list(range(63))
        return len(order)

    assert count(Raster()) == 9 * 7
    assert count(Quadrant()) == count(Neighbourhood(4)) == 9 + 7 - 1
    # What is known takes one step.
    assert count(Raster(), known=4 * 7) == 1 + 5 * 7
    assert count(Quadrant(), known=4 * 7) == 1 + 5 + 7 - 1


def test_known_tokens_stay():
    model = build(Quadrant())
    whole = given(model, 3)
    made = generate(model, 3, given=whole, known=15, seed=1)
    assert torch.equal(made[:, :15], whole[:, :15])
    assert not torch.equal(made[:, 15:], whole[:, 15:])
    assert torch.equal(generate(model, 3, given=whole, known=30), whole)


def test_draws_follow_the_distribution():
    p = torch.tensor([0.1, 0.0, 0.6, 0.3])
    uniform = (torch.arange(1000) + 0.5) / 1000
    drawn = Choice().draw(p.log().expand(1000, 4), uniform.double())
    assert torch.bincount(drawn, minlength=4).tolist() == [100, 0, 600, 300]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(temperature=0.0), [0, 0, 1000, 0]),
        (Choice(temperature=0.5), [22, 0, 782, 196]),  # squares of the shares
        (Choice(top_k=1), [0, 0, 1000, 0]),
        (Choice(top_k=2), [0, 0, 667, 333]),
        (Choice(top_p=0.6), [0, 0, 1000, 0]),
        (Choice(top_p=0.61), [0, 0, 667, 333]),
        (Choice(top_p=0.95), [100, 0, 600, 300]),
    ],
    ids=str,
)
def test_temperature_top_k_and_top_p(choice, expected):
    p = torch.tensor([0.1, 0.0, 0.6, 0.3]).double()
    uniform = (torch.arange(1000).double() + 0.5) / 1000
    drawn = choice.draw(p.log().expand(1000, 4), uniform)
    counts = torch.bincount(drawn, minlength=4)
    assert (counts - torch.tensor(expected)).abs().max() <= 1


def test_the_ends_of_the_line_are_values_that_can_be():
    p = torch.tensor([0.0, 0.5, 0.5, 0.0]).double().log()
    assert Choice().draw(p, torch.tensor(0.0).double()).item() == 1
    assert Choice().draw(p, torch.tensor(1.0).double()).item() == 2


def test_samples_have_the_statistics_of_the_model():
    """Of a model without depth on what it sees: pixels are independent, so frequencies are probabilities."""
    model = build(Raster(), "gray", size=(2, 2))
    for block in model.blocks:
        for parameter in block.parameters():
            parameter.data.zero_()
    model.embed.table.data.zero_()
    model.embed.start.data.zero_()
    expected = model(torch.zeros(1, 4, 1, dtype=torch.int64)).exp()[0, :, 0]
    drawn = generate(model, 4000)[..., 0]
    found = torch.stack([torch.bincount(drawn[:, n], minlength=17) for n in range(4)]) / 4000
    assert (found - expected).abs().max() < 0.04


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Choice(temperature=-1.0), "temperature must be 0 or more"),
        (lambda: Choice(top_k=0), "top k must be at least 1"),
        (lambda: Choice(top_p=0.0), "top p must lie above 0"),
        (lambda: generate(build(Raster(prefix=5)), 1), "a prefix of 5 tokens, which must be given; 0 are"),
        (lambda: generate(build(Raster()), 1, given=torch.zeros(2, 30, 1)), "given must be"),
    ],
)
def test_bad_input(make, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        make()
