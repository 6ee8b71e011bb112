"""Our backbones as encoders of segmentation_models_pytorch: every decoder takes them and trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imagen_fast.errors import InvalidInput
from imagen_fast.models import VisionTransformer, ViTConfig

smp = pytest.importorskip("segmentation_models_pytorch")
ours = pytest.importorskip("imagen_fast.integrations.segmentation_models_pytorch")

CONFIG = ViTConfig(image_size=(32, 32), patch_size=16, embed_dim=32, depth=1, heads=2, positions="learned")


@pytest.fixture(autouse=True)
def _registered():
    ours.register_encoder("tiny", CONFIG)
    yield
    del smp.encoders.encoders["tiny"]


@pytest.mark.parametrize("name", ["Unet", "FPN", "UPerNet", "Linknet", "MAnet", "Segformer"])
def test_a_decoder_trains_all_of_the_encoder(name):
    model = getattr(smp, name)("tiny", encoder_weights=None, classes=4)
    masks = model(torch.randn(2, 3, 64, 96))
    assert masks.shape == (2, 4, 64, 96)
    masks.square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "stride", "asked"),
    [
        ("DeepLabV3", 8, {"encoder_output_stride": 8}),
        ("DeepLabV3", 16, {"encoder_output_stride": 16, "upsampling": 16}),
        ("DeepLabV3Plus", 8, {"encoder_output_stride": 8}),
        ("DeepLabV3Plus", 16, {"encoder_output_stride": 16}),
        ("PAN", 16, {"encoder_output_stride": 16}),
        ("PSPNet", 8, {"encoder_depth": 3}),
    ],
)
def test_the_output_stride_is_what_was_asked_for(name, stride, asked):
    model = getattr(smp, name)("tiny", encoder_weights=None, **asked)
    assert model.encoder.output_stride == stride
    image = torch.randn(2, 3, 128, 160)
    assert model.encoder(image)[-1].shape == (2, 256, 128 // stride, 160 // stride)
    masks = model(image)
    assert masks.shape == (2, 1, 128, 160)
    masks.mean().backward()
    assert model.encoder.body.backbone.patch_embed.proj.weight.grad is not None


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_maps_are_those_that_out_channels_tells(depth):
    encoder = smp.encoders.get_encoder("tiny", depth=depth, weights=None)
    image = torch.randn(1, 3, 50, 70)
    maps = encoder(image)
    assert encoder.out_channels == [3, 64, 256, 256, 256, 256][: depth + 1]
    assert [m.shape[1] for m in maps] == encoder.out_channels
    assert [m.shape[2:] for m in maps] == [(-(-50 // 2**i), -(-70 // 2**i)) for i in range(depth + 1)]
    assert maps[0] is image
    model = smp.Unet("tiny", depth, encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8)[:depth])
    assert model(image).shape == (1, 1, 50, 70)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_start_from_the_weights_of_three(channels):
    backbone = VisionTransformer(CONFIG)
    ours.register_encoder("tiny", backbone)
    model = smp.FPN("tiny", encoder_weights=None, in_channels=channels)
    image = torch.randn(1, channels, 64, 32)
    assert model(image).shape == (1, 1, 64, 32)
    assert model.encoder.out_channels[0] == channels
    weight, kept = model.encoder.body.backbone.patch_embed.proj.weight, backbone.patch_embed.proj.weight
    wanted = (
        kept.sum(1, keepdim=True)
        if channels == 1
        else kept[:, [i % 3 for i in range(channels)]] * 3 / channels
    )
    torch.testing.assert_close(weight, wanted)


def test_models_of_one_backbone_share_no_weights():
    backbone = VisionTransformer(CONFIG)
    ours.register_encoder("tiny", backbone)
    one, other = (smp.Unet("tiny", encoder_weights=None).encoder.body.backbone for _ in range(2))
    for name, p in backbone.named_parameters():
        assert torch.equal(one.get_parameter(name), p)
        assert one.get_parameter(name) is not other.get_parameter(name)
    backbone(torch.randn(1, 3, 32, 32))
    with pytest.raises(InvalidInput, match="images of 32x32 pixels"):
        backbone(torch.randn(1, 3, 64, 64))  # as it was


def test_the_named_sizes_are_registered():
    assert "imagen_fast_vit_small_patch16_224" in smp.encoders.get_encoder_names()
    assert "imagen_fast_vit_small_patch14_224" not in smp.encoders.get_encoder_names()
    with torch.device("meta"):
        model = smp.Unet("imagen_fast_vit_small_patch16_224", encoder_weights=None)
    assert model.encoder.body.backbone.config.embed_dim == 384


def test_a_model_is_saved_and_loaded(tmp_path):
    model = smp.Unet("tiny", encoder_weights=None, classes=2).eval()
    model.save_pretrained(tmp_path)
    again = smp.from_pretrained(tmp_path).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(image), model(image))


def test_bad_input_is_one_sentence():
    for name, backbone, message in (
        ("resnet18", CONFIG, "'resnet18' is an encoder of segmentation_models_pytorch already"),
        ("mine", nn.Linear(2, 2), "not of a Linear"),
        ("mine", VisionTransformer(CONFIG, 3), "a pyramid reads no head"),
    ):
        with pytest.raises(InvalidInput, match=message):
            ours.register_encoder(name, backbone)
    with pytest.raises(InvalidInput, match="encoder_depth must be 1 to 5, not 6"):
        ours.VisionTransformerEncoder(CONFIG, depth=6)
    with pytest.raises(InvalidInput, match="the output stride must be 8, 16 or 32, not 4"):
        ours.VisionTransformerEncoder(CONFIG, output_stride=4)
    grey = ours.VisionTransformerEncoder(ViTConfig(**{**CONFIG.to_dict(), "channels": 1}))
    grey.set_in_channels(1)
    with pytest.raises(InvalidInput, match="only a backbone for 3 channels can take 4, not one for 1"):
        grey.set_in_channels(4)
