"""The pyramid of a plain backbone: layers as in ViTDet, maps of the sizes that convolutions give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from imagen_fast.errors import InvalidInput
from imagen_fast.models import VisionTransformer, ViTConfig
from imagen_fast.models.pyramid import PyramidBackbone, SimplePyramid

CONFIG = ViTConfig(image_size=(32, 32), patch_size=16, embed_dim=32, depth=2, heads=2, positions="learned")


class ChannelNorm(nn.Module):
    """As the paper's: over the channels, in the layout of a map."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-6).sqrt() * self.weight[:, None, None] + self.bias[:, None, None]


def test_the_layers_are_vitdets():
    pyramid = SimplePyramid(16, 16, (4, 8, 16, 32), 24)
    for p in pyramid.parameters():
        nn.init.normal_(p)
    x = torch.randn(2, 16, 4, 6)
    finer = [nn.ConvTranspose2d, ChannelNorm, nn.GELU, nn.ConvTranspose2d]
    ends = [nn.Conv2d, ChannelNorm, nn.Conv2d, ChannelNorm]
    before = [finer, [nn.ConvTranspose2d], [], [nn.MaxPool2d]]
    for level, made, kinds in zip(pyramid.levels, pyramid(x), before, strict=True):
        wanted, channels = x, []
        for layer, kind in zip(level, kinds + ends, strict=True):
            as_theirs = ChannelNorm(layer.weight, layer.bias) if kind is ChannelNorm else layer
            assert isinstance(as_theirs, kind)
            wanted = as_theirs(wanted)
            channels.append(wanted.shape[1])
        torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)
        halved = {4: [8, 8, 8, 4], 1: channels[:1]}.get(len(kinds), [])
        assert channels == [*halved, 24, 24, 24, 24]
    assert [tuple(m.shape[2:]) for m in pyramid(x)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with_bias = [
        name for name, m in pyramid.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None
    ]
    assert with_bias == []


@pytest.mark.parametrize("patch_size", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (1, 33)])
def test_any_image_has_maps_of_the_sizes_that_strides_give(patch_size, size):
    config = ViTConfig(**{**CONFIG.to_dict(), "patch_size": patch_size})
    strides = (4, 8, 16, 32, 64)
    model = PyramidBackbone(VisionTransformer(config), strides, 8)
    maps = model(torch.randn(2, 3, *size))
    sizes = [(2, 8, -(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    assert [tuple(m.shape) for m in maps] == sizes
    sum(m.square().sum() for m in maps).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_map_lies_where_the_image_does():
    """What a patch holds reaches the maps at its own place, beside what attention brings everywhere."""
    model = PyramidBackbone(VisionTransformer(CONFIG), (4, 16, 32), 8)
    for block in model.backbone.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    image = torch.zeros(1, 3, 128, 192)
    other = image.clone()
    other[..., 32:48, 80:96] = 1.0  # the patch of row 2, column 5
    with torch.no_grad():
        changed = [(x != y).any(1)[0] for x, y in zip(model(image), model(other), strict=True)]
    # The 3x3 convolution sees one cell further.
    for where, rows, columns in zip(
        changed, [(7, 13), (1, 4), (0, 3)], [(19, 25), (4, 7), (1, 4)], strict=True
    ):
        wanted = torch.zeros_like(where)
        wanted[slice(*rows), slice(*columns)] = True
        assert torch.equal(where, wanted)


def test_a_padded_image_is_the_image():
    model = PyramidBackbone(VisionTransformer(CONFIG), channels=8)
    image = torch.randn(1, 3, 40, 50)
    whole = nn.functional.pad(image, (0, 14, 0, 24))
    with torch.no_grad():
        for x, y in zip(model(image), model(whole), strict=True):
            assert torch.equal(x, y[..., : x.shape[-2], : x.shape[-1]])


@pytest.mark.parametrize(
    ("patch_size", "strides", "message"),
    [
        (14, (4, 8), "the patch of a pyramid must be a power of two pixels, not 14"),
        (16, (4, 12), "the stride of a pyramid must be a power of two pixels, not 12"),
        (16, (0,), "the stride of a pyramid must be a power of two pixels, not 0"),
    ],
)
def test_strides_are_powers_of_two(patch_size, strides, message):
    with pytest.raises(InvalidInput, match=message):
        SimplePyramid(32, patch_size, strides)


def test_what_no_pyramid_is_made_of_is_refused():
    with pytest.raises(InvalidInput, match="a pyramid needs a stride at least"):
        PyramidBackbone(VisionTransformer(CONFIG), ())
    with pytest.raises(InvalidInput, match="of a VisionTransformer of imagen_fast, not of a Linear"):
        PyramidBackbone(nn.Linear(2, 2))
    classifier = VisionTransformer(CONFIG, num_classes=3)
    with pytest.raises(InvalidInput, match="a pyramid reads no head"):
        PyramidBackbone(classifier)
    classifier.head = nn.Identity()
    PyramidBackbone(classifier)


def test_every_weight_is_used_whatever_the_pooling():
    model = PyramidBackbone(VisionTransformer(replace(CONFIG, pool="avg")), (8, 16), channels=8)
    sum(x.square().sum() for x in model(torch.randn(1, 3, 32, 32))).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
