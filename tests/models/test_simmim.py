from __future__ import annotations

import pytest
import torch
from torch import nn

from imagen_fast.data import Augmentation, Loader, photos
from imagen_fast.errors import InvalidInput, MissingPackage
from imagen_fast.models import SimMIM, TimmBackbone, TimmConfig, build_classifier
from imagen_fast.models.batch_norm import take_statistics
from imagen_fast.objectives import SimMIMConfig, SimMIMObjective
from imagen_fast.train import FitConfig, fit

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("one_thread")

HALF = ((0.5,) * 3, (0.25,) * 3)


def objective(name, side=32, seed=0, **config):
    torch.manual_seed(0)
    return SimMIMObjective(TimmConfig(name, (side, side)), SimMIMConfig(**config), *HALF, seed)


class Stripes(nn.Module):
    """A backbone that is no model of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)

    def forward(self, image):
        return self.conv(image)


def test_any_backbone_of_maps_predicts_pixels_and_what_is_hidden_is_never_read():
    model = SimMIM(Stripes(), width=6, stride=2, channels=1)
    image, hidden = torch.randn(3, 1, 8, 12), torch.rand(3, 1, 8, 12) < 0.5
    clean = model(image, hidden)
    assert clean.shape == image.shape
    assert torch.equal(model(image.masked_fill(hidden, float("nan")), hidden), clean)
    assert not torch.equal(model(image + 1, hidden), clean)
    clean.sum().backward()
    assert model.mask_token.grad.abs() > 0


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_the_map_of_a_convnet_is_timms(name):
    backbone = TimmBackbone(TimmConfig(name, (64, 96))).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = backbone(image)
        assert torch.equal(features, backbone.network.forward_features(image))
    assert features.shape == (2, backbone.embed_dim, 64 // backbone.stride, 96 // backbone.stride)


def test_channels_last_and_tokens_become_maps():
    image = torch.randn(2, 3, 64, 96)
    last = TimmBackbone(TimmConfig("test_mambaout", (64, 96))).eval()
    rows = TimmBackbone(TimmConfig("test_vit4", (64, 96))).eval()
    with torch.no_grad():
        torch.testing.assert_close(last(image), last.network.forward_features(image).permute(0, 3, 1, 2))
        tokens = rows.network.forward_features(image)[:, rows.network.num_prefix_tokens :]
        features = rows(image)
    assert features.shape[2:] == (4, 6)
    assert torch.equal(features[:, :, 2, 5], tokens[:, 2 * 6 + 5])


def test_weights_that_no_map_depends_on_are_frozen():
    backbone = TimmBackbone(TimmConfig("test_convnext", (32, 32)))
    frozen = {name for name, p in backbone.network.named_parameters() if not p.requires_grad}
    assert frozen == {"head.norm.weight", "head.norm.bias"}


def test_the_loss_is_the_absolute_error_of_hidden_pixels():
    o = objective("test_resnet", mask_ratio=0.5, block=8)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    hidden = o.hidden(4, 3, images.device)
    assert hidden.sum((1, 2, 3)).tolist() == [512] * 4
    assert not torch.equal(hidden, o.hidden(4, 4, images.device))
    o.eval()
    normal = (images / 255 - 0.5) / 0.25
    error = o.model(normal, hidden) - normal
    wanted = error[hidden.expand_as(error)].abs().mean()
    torch.testing.assert_close(o.loss(images, hidden).loss, wanted)


@pytest.fixture(scope="module")
def tiles():
    return photos(32)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_it_learns_to_look_at_what_is_visible(name, tiles):
    """Far better than any picture that is the same for every image, the mean or the median by place."""
    o = objective(name, block=8)
    with Loader(tiles, 32, 32, Augmentation()) as loader:
        images = torch.cat([loader.at(step).images for step in range(200, 208)])
        hidden = o.hidden(len(images), 200, images.device)
        normal = o.normalize(images)
        constant = normal.mean((0, 2, 3), keepdim=True), normal.median(0).values
        blind = [float(((normal - x).abs() * hidden).sum() / hidden.sum() / 3) for x in constant]
        config = FitConfig(steps=45, lr=3e-3, warmup=5)
        fit(o, loader, config, device=torch.device("cpu"), quiet=True)
    # Not in evaluation: after so few steps the running statistics are still those of the beginning.
    with torch.no_grad():
        assert float(o.loss(images, hidden).loss) < 0.75 * min(blind)


def test_batch_norms_go_by_the_inputs_they_are_given():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.BatchNorm2d(4))
    aside = nn.BatchNorm2d(4)
    aside.running_mean.fill_(3.0)
    model[1].aside = aside
    batches = [torch.randn(8, 1, 9, 9) + 2 for _ in range(3)]
    take_statistics(model, batches)
    first = torch.stack([model[0](x).mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(model[1].running_mean, first)
    # Nothing was dropped on the way: the second one sees what the first one gives, of mean 0 and variance 1.
    torch.testing.assert_close(model[3].running_var, torch.ones(4), rtol=0.02, atol=0)
    assert bool((aside.running_mean == 3).all())
    assert model[1].momentum == 0.1
    assert not any(m.training for m in model.modules())


def test_a_frozen_batch_norm_keeps_its_statistics():
    classifier = build_classifier(TimmConfig("test_resnet", (32, 32)), 5)
    classifier.network.requires_grad_(False)
    before = classifier.network.bn1.running_mean.clone()
    assert classifier.train()(torch.randn(4, 3, 32, 32) + 5).shape == (4, 5)
    assert torch.equal(classifier.network.bn1.running_mean, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimmBackbone(TimmConfig("resnt50")), r"has no model 'resnt50'; did you mean resnet50"),
        (lambda: TimmBackbone(TimmConfig("resnet50.mine")), "no weights of that tag for 'resnet50.mine'"),
        (lambda: TimmBackbone(TimmConfig("test_resnet", (32, 48))), "multiples of 32 pixels, not 32x48"),
        (lambda: TimmBackbone(TimmConfig("pit_ti_224", (64, 64))), "does not take images of 3x64x64"),
        (lambda: TimmConfig("test_resnet", channels=0), "channels must be at least 1"),
        (lambda: objective("test_resnet", block=20), "a hidden block of 20 pixels does not divide an image"),
        (lambda: SimMIMConfig(mask_ratio=1.0), "strictly between 0 and 1"),
        (lambda: SimMIMConfig(mask="lines"), "mask must be"),
    ],
)
def test_bad_input_is_one_sentence(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize(
    ("stride", "hidden", "image", "message"),
    [
        (
            4,
            torch.zeros(2, 8, 8, dtype=torch.bool),
            torch.zeros(2, 3, 8, 8),
            r"hidden must be bool \(2, 1, 8, 8\)",
        ),
        (4, torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8), "not torch.float32"),
        (
            4,
            torch.zeros(2, 1, 8, 8, dtype=torch.bool),
            torch.zeros(2, 3, 8, 8).byte(),
            "image must be normalised",
        ),
        (
            8,
            torch.zeros(2, 1, 8, 8, dtype=torch.bool),
            torch.zeros(2, 3, 8, 8),
            "a map of stride 8 was expected",
        ),
    ],
)
def test_what_cannot_be_masked_is_one_sentence(stride, hidden, image, message):
    with pytest.raises(InvalidInput, match=message):
        SimMIM(nn.Conv2d(3, 5, 4, stride=4), 5, stride)(image, hidden)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingPackage, match=r"needs the package timm: pip install imagen-fast\[timm\]"):
        TimmBackbone(TimmConfig("resnet50"))
