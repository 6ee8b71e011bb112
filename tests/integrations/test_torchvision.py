"""Our backbones under torchvision's detectors: a step of training, and boxes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

from imagen_fast.models import VisionTransformer, ViTConfig

detection = pytest.importorskip("torchvision.models.detection")
ours = pytest.importorskip("imagen_fast.integrations.torchvision")

CONFIG = ViTConfig(image_size=(32, 32), patch_size=16, embed_dim=32, depth=1, heads=2, positions="learned")
# Neither square nor divisible by the patch, in the detector's transform as well.
SIZES = {"min_size": 70, "max_size": 110, "size_divisible": 1}


def pictures():
    """Two of different sizes with one bright box each, and what is to be found there."""
    images, targets = [], []
    for height, width in ((70, 90), (80, 75)):
        image, mask = torch.zeros(3, height, width), torch.zeros(1, height, width, dtype=torch.uint8)
        image[:, 20:52, 10:46] = 1.0
        mask[:, 20:52, 10:46] = 1
        images.append(image)
        box = torch.tensor([[10.0, 20.0, 46.0, 52.0]])
        targets.append({"boxes": box, "labels": torch.tensor([1]), "masks": mask})
    return images, targets


@pytest.mark.parametrize(
    ("name", "strides", "changes"),
    [
        ("FasterRCNN", (4, 8, 16, 32), {"box_detections_per_img": 3, "box_score_thresh": 0.0}),
        (
            "MaskRCNN",
            (4, 8, 16, 32),
            {"box_detections_per_img": 3, "box_score_thresh": 0.0, "box_batch_size_per_image": 16},
        ),
        ("RetinaNet", (8, 16, 32, 64), {"detections_per_img": 3, "score_thresh": 0.0}),
    ],
)
def test_a_detector_trains_and_finds_boxes(name, strides, changes):
    torch.manual_seed(0)
    backbone = ours.DetectionBackbone(VisionTransformer(CONFIG), strides, out_channels=16)
    model = getattr(detection, name)(backbone, num_classes=2, **SIZES, **changes)
    images, targets = pictures()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        torch.manual_seed(1)  # the same proposals are sampled
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.no_grad():
        for image, found in zip(images, model(images), strict=True):
            boxes = found["boxes"]
            assert boxes.shape == (3, 4)
            height, width = image.shape[-2:]
            assert bool(((boxes >= 0) & (boxes <= torch.tensor([width, height, width, height]))).all())


def test_the_maps_have_torchvisions_names_and_sizes():
    backbone = ours.DetectionBackbone(VisionTransformer(CONFIG), out_channels=8)
    assert backbone.out_channels == 8
    image = torch.randn(1, 3, 70, 100)
    maps = backbone(image)
    resnet = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    theirs = resnet(image)
    assert isinstance(maps, OrderedDict)
    assert {name: m.shape[2:] for name, m in maps.items()} == {
        name: m.shape[2:] for name, m in theirs.items()
    }
