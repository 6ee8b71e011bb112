"""Our vision transformers under timm's functions, beside timm's own of the same weights."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import models
from imagen_fast.errors import InvalidInput
from imagen_fast.models.convert import save_timm
from imagen_fast.models.positions import resize_positions
from imagen_fast.tasks.backbone import save_backbone

timm = pytest.importorskip("timm")
optim = pytest.importorskip("timm.optim")
ours = pytest.importorskip("imagen_fast.integrations.timm")

NAME = "imagen_fast_vit_small_patch16_224"
TINY = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2, "num_classes": 5}
# Beside each the size of the images.
WAYS = {
    "token": ({}, (32, 24)),
    "avg": ({"global_pool": "avg"}, (32, 24)),
    "avg with the norm before": ({"global_pool": "avg", "fc_norm": False}, (32, 24)),
    "max": ({"global_pool": "max"}, (32, 24)),
    "avgmax": ({"global_pool": "avgmax"}, (32, 24)),
    "unpooled": ({"global_pool": ""}, (32, 24)),
    "no head": ({"num_classes": 0}, (32, 24)),
    "grey": ({"in_chans": 1}, (32, 24)),
    "dynamic": ({"dynamic_img_size": True}, (48, 40)),
    "padded": ({"dynamic_img_size": True, "dynamic_img_pad": True}, (45, 37)),
}


def pair(name: str = NAME, **changes):
    """timm's own and ours, of the same weights."""
    torch.manual_seed(0)
    theirs = timm.create_model(name.removeprefix("imagen_fast_"), **{**TINY, **changes}).eval()
    mine = timm.create_model(name, **{**TINY, **changes}).eval()
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def close(mine, theirs, what=""):
    """Within what two orders of the same sums differ by."""
    assert mine.shape == theirs.shape, what
    assert (mine - theirs).norm() <= 1e-5 * theirs.norm(), what


@pytest.mark.parametrize("way", WAYS)
def test_outputs_and_gradients_are_timms(way):
    changes, size = WAYS[way]
    theirs, mine = pair(**changes)
    image = torch.randn(2, changes.get("in_chans", 3), *size)
    close(mine.forward_features(image), theirs.forward_features(image))
    close(mine.forward_head(mine.forward_features(image), pre_logits=True),
          theirs.forward_head(theirs.forward_features(image), pre_logits=True))  # fmt: skip
    wanted = torch.randn_like(theirs(image))
    for model in (theirs, mine):
        (model(image) * wanted).sum().backward()
    close(mine(image), theirs(image))
    names = [name for name, _ in theirs.named_parameters()]
    assert names == [name for name, _ in mine.named_parameters()]
    for name, p in theirs.named_parameters():
        close(mine.get_parameter(name).grad, p.grad, name)


@pytest.mark.parametrize("way", ["token", "dynamic", "padded"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"indices": 2, "norm": True},
        {"indices": [0, -1], "return_prefix_tokens": True},
        {"indices": [1], "stop_early": True, "output_fmt": "NLC"},
        {"indices": [2, 0], "intermediates_only": True},
        {"indices": [1], "return_prefix_tokens": True, "intermediates_only": True, "output_fmt": "NLC"},
    ],
    ids=str,
)
def test_intermediates_are_timms(way, asked):
    changes, size = WAYS[way]
    theirs, mine = pair(**changes)
    image = torch.randn(2, 3, *size)

    def flat(found):
        return [found] if isinstance(found, torch.Tensor) else [x for part in found for x in flat(part)]

    with torch.no_grad():
        wanted = flat(theirs.forward_intermediates(image, **asked))
        found = flat(mine.forward_intermediates(image, **asked))
    for x, y in zip(found, wanted, strict=True):
        close(x, y)


def test_intermediates_as_a_dictionary_and_as_dino_asks_for_them():
    theirs, mine = pair()
    image = torch.randn(2, 3, 32, 24)
    with torch.no_grad():
        final, maps = mine.forward_intermediates(image, [1, 2], return_prefix_tokens=True)
        named = mine.forward_intermediates(image, [1, 2], return_prefix_tokens=True, output_dict=True)
        assert torch.equal(named["image_features"], final)
        both = zip(named["image_intermediates"], named["image_intermediates_prefix"], strict=True)
        for (x, prefix), (y, same) in zip(both, maps, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(prefix, same)
        for asked in ({"n": 2}, {"n": (0, 2), "reshape": True, "norm": True}):
            found, wanted = (model.get_intermediate_layers(image, **asked) for model in (mine, theirs))
            for x, y in zip(found, wanted, strict=True):
                close(x, y)


def test_features_only():
    changes = {key: value for key, value in TINY.items() if key != "num_classes"}
    theirs, mine = (
        timm.create_model(name, features_only=True, out_indices=(0, -2), **changes).eval()
        for name in ("vit_small_patch16_224", NAME)
    )
    mine.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 32, 24)
    assert len(mine.model.blocks) == 2  # the last is asked for by nobody
    with torch.no_grad():
        for x, y in zip(mine(image), theirs(image), strict=True):
            close(x, y)
    for what in ("channels", "reduction", "module_name"):
        assert getattr(mine.feature_info, what)() == getattr(theirs.feature_info, what)()


def test_every_size_is_registered_and_has_timms_weights_and_names():
    names = timm.list_models("imagen_fast*")
    assert NAME in names
    assert len(names) == 14
    for name in ("tiny_patch16", "base_patch16", "large_patch14", "huge_patch14"):
        theirs, mine = (
            timm.create_model(f"{of}vit_{name}_224", num_classes=10, depth=1) for of in ("", "imagen_fast_")
        )
        shapes = {key: value.shape for key, value in theirs.state_dict().items()}
        assert shapes == {key: value.shape for key, value in mine.state_dict().items()}
    with torch.device("meta"):
        assert len(timm.create_model("imagen_fast_vit_large_patch16_224").blocks) == 24
    assert timm.list_models("imagen_fast*", pretrained=True) == []
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {NAME}"):
        timm.create_model(NAME, pretrained=True, **TINY)


def test_layer_decay_and_the_data_are_as_for_timms():
    theirs, mine = pair()
    groups = []
    for model in (theirs, mine):
        made = optim.param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
        of = {p: name for name, p in model.named_parameters()}
        groups.append([(g["lr_scale"], g["weight_decay"], [of[p] for p in g["params"]]) for g in made])
    assert groups[0] == groups[1]
    data = timm.data.resolve_model_data_config(mine)
    assert data["mean"] == (0.485, 0.456, 0.406)
    assert data["input_size"] == timm.data.resolve_model_data_config(theirs)["input_size"]
    drops = [
        [block.drop_path.rate for block in timm.create_model(NAME, drop_path_rate=0.4, **TINY).blocks],
        [0.0, 0.2, 0.4],
    ]
    assert drops[0] == pytest.approx(drops[1])


def test_the_head_is_made_anew():
    theirs, mine = pair()
    for classes, pool in ((7, None), (3, "avg"), (0, "")):
        for model in (theirs, mine):
            model.reset_classifier(classes, pool)
        mine.load_state_dict(theirs.state_dict())
        assert mine.get_classifier() is mine.head
        image = torch.randn(2, 3, 32, 24)
        with torch.no_grad():
            close(mine(image), theirs(image))
        assert mine.num_classes == classes


@pytest.mark.parametrize(
    "change", [{"img_size": (48, 40)}, {"patch_size": 4}, {"img_size": 64, "patch_size": 16}]
)
def test_the_input_size_is_changed_as_timms(change):
    theirs, mine = pair()
    for model in (theirs, mine):
        model.set_input_size(**change)
    assert mine.patch_embed.grid_size == theirs.patch_embed.grid_size == mine.config.grid
    image = torch.randn(2, 3, *theirs.patch_embed.img_size)
    with torch.no_grad():
        close(mine(image), theirs(image))


def test_gradient_checkpointing_computes_the_blocks_again():
    mine = timm.create_model(NAME, drop_path_rate=0.2, **TINY)
    mine.set_grad_checkpointing()
    calls = []
    mine.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    mine(torch.randn(2, 3, 32, 24)).sum().backward()
    assert len(calls) == 2


def test_timms_checkpoints_are_loaded_and_ours_by_timm(tmp_path):
    theirs, mine = pair()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    torch.nn.init.normal_(mine.head.bias)
    save_timm(mine, tmp_path / "ours.safetensors")
    for name in (NAME, "vit_small_patch16_224"):
        for file, of in (("theirs.pth", theirs), ("ours.safetensors", mine)):
            again = timm.create_model(name, checkpoint_path=str(tmp_path / file), **TINY)
            for key, value in of.state_dict().items():
                assert torch.equal(again.state_dict()[key], value), key


def test_the_weights_of_a_run_are_loaded(tmp_path):
    """For images of another size, and with a new head."""
    config = models.ViTConfig((32, 32), 8, embed_dim=64, depth=3, heads=2)
    backbone = models.VisionTransformer(config)
    file = str(save_backbone(tmp_path, backbone, (0.5,) * 3, (0.5,) * 3))
    model = timm.create_model(
        NAME,
        pretrained=True,
        pretrained_cfg_overlay={"file": file, "input_size": (3, 32, 32)},
        **{**TINY, "img_size": 48},
    )
    wanted = backbone.state_dict()
    wanted["pos_embed"] = resize_positions(wanted["pos_embed"], (4, 4), (6, 6))
    for name, value in wanted.items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    bare = timm.create_model(NAME, checkpoint_path=file, **{**TINY, "img_size": 32, "num_classes": 0})
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(bare.eval()(image), backbone.eval()(image))


def test_it_is_our_backbone():
    mine = timm.create_model(NAME, dtype=torch.bfloat16, drop_rate=0.1, reg_tokens=0, **TINY)
    assert isinstance(mine, models.VisionTransformer)
    assert {p.dtype for p in mine.parameters()} == {torch.bfloat16}
    assert mine.head_drop.p == 0.1
    visible = torch.tensor([[0, 5], [1, 2]])
    assert mine.forward_features(torch.randn(2, 3, 32, 24), visible).shape == (2, 3, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg_tokens": 4}, "cannot be made with reg_tokens=4"),
        ({"nonsense": 1}, "cannot be made with nonsense=1"),
        ({"global_pool": "map"}, "global_pool must be one of .* not 'map'"),
        ({"patch_size": (8, 4)}, "patches must be square, not 8x4"),
        ({"img_size": 30}, "8 pixels does not divide an image of 30x30"),
    ],
)
def test_what_ours_cannot_be_is_one_sentence(change, message):
    with pytest.raises(InvalidInput, match=message):
        timm.create_model(NAME, **{**TINY, **change})
    with pytest.raises(InvalidInput, match="must be NCHW or NLC, not 'NHWC'"):
        ours.VisionTransformer(**TINY).forward_intermediates(torch.randn(1, 3, 32, 24), output_fmt="NHWC")
