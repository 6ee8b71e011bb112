"""What a prediction depends on, for every context, colour and head; and what the shapes are made of."""

from __future__ import annotations

import pytest
import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.models import PixelClassifier, PixelConfig, PixelTransformer, pixel_config
from imagen_fast.models.pixel_head import PixelHead
from imagen_fast.models.pixel_symbols import PixelSymbols
from imagen_fast.ops import Neighbourhood, Quadrant, Raster

# What a token sees of tokens with raster numbers, as (context, which strictly earlier tokens are seen).
EXACT = (Raster(), Quadrant(), Neighbourhood(1))
WIDER = (Neighbourhood(2), Neighbourhood(3))
PREFIXED = (Raster(prefix=5), Quadrant(prefix=8))
COLOURS = {
    "palette": {"colours": 16},
    "gray": {"channels": 1, "levels": 17},
    "rgb": {"channels": 3, "levels": 8},
    "rgb mixture": {"channels": 3, "levels": 8, "head": "mixture", "mixtures": 3},
    "patches": {"channels": 3, "levels": 8, "patch_size": 2},
    "palette patches": {"colours": 16, "patch_size": 2},
}


def build(context, colour, depth=3) -> PixelTransformer:
    torch.manual_seed(0)
    kind = COLOURS[colour]
    side = kind.get("patch_size", 1)
    size = (5 * side, 4 * side)
    config = PixelConfig(image_size=size, embed_dim=16, heads=2, depth=depth, context=context, **kind)
    model = PixelTransformer(config).double().eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


@torch.no_grad()
def dependencies(model: PixelTransformer):
    """[N, N] bool, whether the first value of token i depends on token j; the same of the values of one."""
    c = model.config
    values = torch.randint(0, c.choices, (1, c.tokens, c.values))
    before = model(values)
    between = torch.zeros(c.tokens, c.tokens, dtype=torch.bool)
    inside = torch.zeros(c.values, c.values, dtype=torch.bool)
    for place in range(c.tokens):
        for value in range(c.values):
            changed = values.clone()
            changed[0, place, value] = (changed[0, place, value] + 1) % c.choices
            differs = (model(changed) != before).any(-1)[0]  # [N, U]
            inside[:, value] |= differs[place]
            differs[place] = False
            between[:, place] |= differs.any(-1)
    return between, inside


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("context", EXACT, ids=str)
def test_a_prediction_depends_on_all_that_its_context_names_and_on_nothing_else(context, colour):
    model = build(context, colour)
    between, _ = dependencies(model)
    named = context.window(model.config.grid).visible() & ~torch.eye(model.config.tokens, dtype=torch.bool)
    assert torch.equal(between, named)


def test_the_smallest_neighbourhood_is_three_pixels():
    between, _ = dependencies(build(Neighbourhood(1), "palette"))
    # Of the pixel in row 2 and column 1 of four columns: left, above, between.
    assert between[9].nonzero().flatten().tolist() == [4, 5, 8]


@pytest.mark.parametrize("colour", ["palette", "patches"])
@pytest.mark.parametrize("context", WIDER, ids=str)
def test_a_neighbourhood_grows_with_depth_and_never_beyond_what_may_be_seen(context, colour):
    # Of one block it is the window itself.
    model = build(context, colour, depth=1)
    between, _ = dependencies(model)
    named = context.window(model.config.grid).visible() & ~torch.eye(model.config.tokens, dtype=torch.bool)
    assert torch.equal(between, named)
    deep, _ = dependencies(build(context, colour, depth=3))
    assert not (deep & ~Quadrant().window(model.config.grid).visible()).any()
    assert not deep.diagonal().any()


@pytest.mark.parametrize("context", PREFIXED, ids=str)
def test_what_follows_a_prefix_leaks_nothing(context):
    model = build(context, "palette")
    between, _ = dependencies(model)
    tokens, prefix = model.config.tokens, context.prefix
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu()
    assert not (between & later)[prefix:].any()
    assert between[prefix:, : prefix - 1].all()


@pytest.mark.parametrize("colour", ["rgb", "rgb mixture", "patches"])
def test_channels_are_predicted_in_order(colour):
    model = build(Raster(), colour)
    _, inside = dependencies(model)
    pixels = model.config.patch_size**2
    each = torch.ones(3, 3, dtype=torch.bool).tril(-1)
    assert torch.equal(inside, torch.block_diag(*[each] * pixels).bool())


@pytest.mark.parametrize("colour", COLOURS)
def test_probabilities_sum_to_one_and_the_loss_is_theirs(colour):
    model = build(Quadrant(), colour)
    c = model.config
    values = torch.randint(0, c.choices, (2, c.tokens, c.values))
    log_p = model(values)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, c.tokens, c.values, dtype=torch.float64))
    chosen = log_p.gather(-1, values[..., None])[..., 0]
    torch.testing.assert_close(model.loss(values), -chosen.mean())
    model.loss(values).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_prefix_does_not_count():
    model = build(Raster(prefix=5), "gray")
    values = torch.randint(0, 17, (2, 20, 1))
    chosen = model(values).gather(-1, values[..., None])[..., 0]
    torch.testing.assert_close(model.loss(values), -chosen[:, 5:].mean())


@pytest.mark.parametrize("colour", ["gray", "rgb", "patches"])
def test_images_of_as_many_levels_survive(colour):
    config = build(Raster(), colour).config
    symbols = PixelSymbols(config)
    values = torch.randint(0, config.choices, (3, config.tokens, config.values), dtype=torch.uint8)
    assert torch.equal(symbols(symbols.images(values)), values)


def test_images_are_bytes_whatever_type_their_values_have():
    symbols = PixelSymbols(PixelConfig(image_size=(2, 2), embed_dim=8, heads=2))
    images = symbols.images(torch.tensor([[[0, 127, 255]] * 4]))
    assert images.dtype == torch.uint8
    assert images[0, :, 0, 0].tolist() == [0, 127, 255]


def test_a_palette_takes_the_nearest_colour():
    symbols = PixelSymbols(PixelConfig(image_size=(2, 2), colours=3, embed_dim=8, heads=2))
    symbols.palette.copy_(torch.tensor([[0, 0, 0], [255, 0, 0], [250, 250, 250]]))
    image = torch.tensor([[3, 2, 1], [200, 30, 9], [255, 255, 255], [249, 251, 250]], dtype=torch.uint8)
    values = symbols(image.T.reshape(1, 3, 2, 2))
    assert values.flatten().tolist() == [0, 1, 2, 2]
    assert symbols.images(values)[0, :, 0, 1].tolist() == [255, 0, 0]


def test_a_cast_leaves_the_palette_as_it_is():
    symbols = PixelSymbols(PixelConfig(image_size=(2, 2), colours=2, embed_dim=8, heads=2))
    symbols.palette.fill_(201)
    assert symbols.to(torch.bfloat16).palette.dtype == torch.uint8


def test_half_precision_adds_the_gradients_of_a_table_in_float32():
    config = PixelConfig(image_size=(32, 32), colours=4, embed_dim=16, heads=2, depth=1)
    model = PixelTransformer(config).embed
    values = torch.zeros(8, config.tokens, 1, dtype=torch.uint8)  # one row of the table gets all of it
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype).zero_grad()
        (model(values).float() * 1e-3).sum().backward()
        expected = 8 * (config.tokens - 1) * 1e-3
        torch.testing.assert_close(
            model.table.grad[0].float(), torch.full((16,), expected), rtol=5e-3, atol=0
        )


@pytest.mark.parametrize("context", [*EXACT, *WIDER, *PREFIXED], ids=str)
def test_configurations_survive_json(context):
    config = pixel_config("nano", image_size=(8, 8), context=context, colours=12)
    assert PixelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size": 3}, "a patch of 3 pixels does not divide"),
        ({"heads": 5}, "5 heads do not divide a width of 192"),
        ({"levels": 1}, "levels must be 2 to 256"),
        ({"colours": 1}, "a palette must have 2"),
        ({"head": "gaussian"}, "head must be"),
        ({"head": "mixture", "colours": 8}, "a palette's colours are not"),
        ({"context": Neighbourhood(0)}, "radius 1 or more"),
        ({"context": Neighbourhood(2, "raster")}, "is that of the quadrant"),
        ({"context": Raster(prefix=2000)}, "the prefix must be 0 to 1024"),
    ],
)
def test_bad_shapes(changes, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        pixel_config("tiny", **changes)


def test_the_classifier_reads_images():
    config = pixel_config("nano", image_size=(8, 8), channels=1, levels=17)
    model = PixelClassifier(config, 10)
    assert model(torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)).shape == (3, 10)


def test_a_mixture_head_begins_spread_over_the_levels():
    head = PixelHead(16, 1, 256, kind="mixture")
    p = head(torch.zeros(1, 16)).exp().flatten()[1:-1]  # the ends hold what lies beyond them
    assert p.max() < 2 * p.min()
