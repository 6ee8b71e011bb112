from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from imagen_fast.data.masks import masks_from_noise
from imagen_fast.errors import InvalidInput
from imagen_fast.models import (
    MODELS,
    DecoderConfig,
    MaskedAutoencoder,
    VisionTransformer,
    ViTConfig,
    decoder_config,
    vit_config,
)
from imagen_fast.models.positions import resize_positions, sincos_positions

SMALL = ViTConfig(image_size=(16, 24), patch_size=4, channels=1, embed_dim=32, depth=3, heads=2)


def test_only_visible_patches_are_read():
    model = VisionTransformer(SMALL)
    image = torch.randn(3, 1, 16, 24)
    masks = masks_from_noise(torch.rand(3, SMALL.patches), 0.6)
    with torch.no_grad():
        clean = model.forward_features(image, masks.visible)
        tiles = image.unflatten(2, (4, 4)).unflatten(4, (6, 4))
        for b in range(3):
            for patch in masks.hidden[b].tolist():
                tiles[b, :, patch // 6, :, patch % 6, :] = float("nan")
        assert torch.equal(model.forward_features(tiles.reshape(3, 1, 16, 24), masks.visible), clean)
    assert clean.shape == (3, 1 + masks.visible.shape[1], 32)


def test_visible_tokens_are_those_of_the_whole_image():
    model = VisionTransformer(SMALL)
    image = torch.randn(2, 1, 16, 24)
    visible = torch.tensor([[0, 5, 23], [1, 2, 3]])
    whole = model.embed(image)
    chosen = model.embed(image, visible)
    torch.testing.assert_close(chosen[:, 1:], whole[:, 1:].gather(1, visible[..., None].expand(-1, -1, 32)))
    torch.testing.assert_close(chosen[:, 0], whole[:, 0])


def test_the_decoder_tail_is_the_whole_block():
    decoder = MaskedAutoencoder(SMALL, DecoderConfig("full", 32, 2, 2)).decoder
    x = torch.randn(2, 9, 32)
    block = decoder.blocks[1]
    torch.testing.assert_close(block(x, first=4), block(x)[:, 4:])


def test_every_block_is_called_through_its_hooks():
    """FSDP, adapters and profilers hang on them."""
    model = MaskedAutoencoder(SMALL, DecoderConfig("full", 32, 2, 2))
    called = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    masks = masks_from_noise(torch.rand(2, SMALL.patches), 0.75)
    model(torch.randn(2, 1, 16, 24), *masks)
    for part in ("", ".attn", ".attn.qkv", ".attn.proj", ".mlp.fc1", ".mlp.fc2", ".norm1"):
        assert {f"decoder.blocks.{i}{part}" for i in (0, 1)} <= called
        assert {f"encoder.blocks.{i}{part}" for i in (0, 1, 2)} <= called


def test_cross_predictions_do_not_depend_on_each_other():
    model = MaskedAutoencoder(SMALL, DecoderConfig("cross", 32, 2, 2))
    image = torch.randn(2, 1, 16, 24)
    masks = masks_from_noise(torch.rand(2, SMALL.patches), 0.75)
    with torch.no_grad():
        all_of_them = model(image, masks.visible, masks.hidden)
        some = model(image, masks.visible, masks.hidden[:, 3:7])
    torch.testing.assert_close(some, all_of_them[:, 3:7])


def test_heads_and_pools():
    for pool in ("token", "avg"):
        model = VisionTransformer(ViTConfig(**{**SMALL.to_dict(), "pool": pool}), num_classes=7)
        assert model(torch.randn(2, 1, 16, 24)).shape == (2, 7)
        bare = VisionTransformer(ViTConfig(**{**SMALL.to_dict(), "pool": pool}))
        assert bare(torch.randn(2, 1, 16, 24)).shape == (2, 32)


def test_compiles_in_one_graph():
    model = MaskedAutoencoder(SMALL, DecoderConfig("full", 32, 2, 2))
    masks = masks_from_noise(torch.rand(2, SMALL.patches), 0.75)
    image = torch.randn(2, 1, 16, 24)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, *masks), model(image, *masks))


@pytest.mark.parametrize("decoder", [None, "full", "cross"])
def test_one_graph_serves_batches_of_any_size(decoder):
    if decoder is None:
        model = VisionTransformer(SMALL, 3, drop_path=0.1)
    else:
        model = MaskedAutoencoder(SMALL, DecoderConfig(decoder, 32, 2, 2))
    torch.compiler.reset()
    graphs = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    for batch in range(2, 12):
        masks = () if decoder is None else masks_from_noise(torch.rand(batch, SMALL.patches), 0.75)
        compiled(torch.randn(batch, 1, 16, 24), *masks)
    assert graphs.frame_count <= 2


def test_it_is_exported_for_batches_of_any_size():
    model = VisionTransformer(SMALL, 3).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (torch.randn(8, 1, 16, 24),), dynamic_shapes=shapes)
    image = torch.randn(3, 1, 16, 24)
    torch.testing.assert_close(exported.module()(image), model(image))


def test_drop_path_drops_whole_images_in_training_only():
    model = VisionTransformer(SMALL, drop_path=0.9)
    image = torch.randn(64, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), model(image))
        assert not torch.equal(model.train()(image), model(image))


def test_positions_match_the_formula_and_resize():
    table = sincos_positions(8, (2, 3))
    assert table.shape == (1, 7, 8)
    assert bool((table[0, 0] == 0).all())
    row, column = 1, 2
    omega = torch.tensor([1.0, 0.01])
    wanted = torch.cat(
        [(column * omega).sin(), (column * omega).cos(), (row * omega).sin(), (row * omega).cos()]
    )
    torch.testing.assert_close(table[0, 1 + row * 3 + column], wanted)
    assert resize_positions(table, (2, 3), (4, 6)).shape == (1, 25, 8)
    assert torch.equal(resize_positions(table, (2, 3), (2, 3)), table)


def test_an_image_of_another_size_has_its_positions_interpolated():
    learned = ViTConfig(**{**SMALL.to_dict(), "positions": "learned"})
    model = VisionTransformer(learned, sizes="divisible")
    wide = VisionTransformer(ViTConfig(**{**learned.to_dict(), "image_size": (20, 40)}))
    weights = model.state_dict()
    weights["pos_embed"] = resize_positions(weights["pos_embed"], learned.grid, (5, 10))
    wide.load_state_dict(weights)
    image = torch.randn(2, 1, 20, 40)
    visible = masks_from_noise(torch.rand(2, 50), 0.75).visible
    with torch.no_grad():
        assert torch.equal(model(image), wide(image))
        features = wide.forward_features(image, visible)
        assert torch.equal(model.forward_features(image, visible), features)
        assert torch.equal(model.predictive_features(image), wide.predictive_features(image))
    model(image)[:, 0].sum().backward()
    assert bool((model.pos_embed.grad != 0).all())


def test_positions_are_interpolated_as_pytorch_does():
    table = torch.randn(1, 1 + 12, 8)
    for new in ((5, 10), (2, 3), (3, 8), (1, 1)):
        grid = table[:, 1:].unflatten(1, (3, 4)).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", antialias=True)
        wanted = torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)
        torch.testing.assert_close(resize_positions(table, (3, 4), new), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(resize_positions(table, (3, 4), new), wanted)


def test_images_of_all_sizes_share_a_compiled_graph():
    """Of the tokens: what comes after them knows no grid, and takes long to compile."""
    model = VisionTransformer(ViTConfig(**{**SMALL.to_dict(), "positions": "learned"}), sizes="divisible")
    compiled = torch.compile(model.embed, fullgraph=True, backend="aot_eager", dynamic=True)
    compiled(torch.randn(2, 1, 20, 40))
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in ((8, 12), (36, 16)):
            image = torch.randn(2, 1, *size)
            tokens = compiled(image)
            torch.testing.assert_close(tokens, model.embed(image))
            tokens.sum().backward()


def test_an_image_that_the_patch_does_not_divide_is_padded_with_zeros():
    model = VisionTransformer(SMALL, sizes="padded")
    image = torch.randn(2, 1, 17, 39)
    whole = torch.nn.functional.pad(image, (0, 1, 0, 3))
    with torch.no_grad():
        assert torch.equal(model(image), model(whole))


def test_intermediates_are_what_the_blocks_leave():
    model = VisionTransformer(SMALL)
    image = torch.randn(2, 1, 16, 24)
    left: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, output: left.append(output))
    with torch.no_grad():
        first, again, last = model.intermediates(image, [0, 0, 2])
        assert torch.equal(first, left[0])
        assert torch.equal(again, left[0])
        assert torch.equal(last, left[2])
        assert torch.equal(model.norm(last), model.forward_features(image))
        left.clear()
        model.intermediates(image, [1])
    assert len(left) == 2  # the third block is not computed


@pytest.mark.parametrize("way", ["forward", "predictive_features", "intermediates"])
def test_gradient_checkpointing_computes_the_blocks_again(way):
    model = VisionTransformer(SMALL, drop_path=0.5)
    image = torch.randn(8, 1, 16, 24)
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    model.blocks[1].register_forward_pre_hook(count)

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)  # the same images are dropped
        model.zero_grad()
        out = model.intermediates(image, [2])[0] if way == "intermediates" else getattr(model, way)(image)
        out.square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    kept = gradients()
    assert calls == 1
    model.grad_checkpointing = True
    for one, other in zip(kept, gradients(), strict=True):
        torch.testing.assert_close(one, other)
    assert calls == 3


def test_every_named_model_exists():
    parameters = {}
    for name in MODELS:
        with torch.device("meta"):
            decoder_config(name)
            parameters[name] = sum(p.numel() for p in VisionTransformer(vit_config(name)).parameters())
    # Dosovitskiy et al. 2021, table 1, without the head: 86M, 307M, 632M.
    assert round(parameters["base"] / 1e6) == 86
    assert round(parameters["large"] / 1e6) in (303, 304)
    assert round(parameters["huge"] / 1e6) in (630, 631, 632)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vit_config("giant"), "model must be one of nano, tiny"),
        (lambda: vit_config("tiny", patch_size=15), "15 pixels does not divide an image of 224x224"),
        (lambda: ViTConfig(embed_dim=100, heads=3), "3 heads do not divide a width of 100"),
        (lambda: DecoderConfig("half"), "must be 'full' or 'cross'"),
        (lambda: DecoderConfig(embed_dim=66, heads=3), "a width that 4 divides, not 66"),
        (lambda: DecoderConfig(depth=0), "decoder depth must be at least 1, not 0"),
        (lambda: vit_config("tiny", heads=0), "heads must be at least 1, not 0"),
        (lambda: vit_config("tiny", embed_dim=0), "embed dim must be at least 1, not 0"),
        (lambda: VisionTransformer(SMALL)(torch.randn(1, 1, 8, 8)), "images of 16x24 pixels, not 8x8"),
        (
            lambda: VisionTransformer(SMALL, sizes="divisible")(torch.randn(1, 1, 8, 9)),
            "images that its patch of 4 pixels divides, not 8x9",
        ),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()
