from __future__ import annotations

import json

import pytest
import torch

from imagen_fast.errors import CheckpointError
from imagen_fast.models import VisionTransformer, vit_config
from imagen_fast.tasks.backbone import load_backbone, save_backbone


@pytest.fixture
def saved(tmp_path):
    vit = VisionTransformer(vit_config("nano", image_size=(8, 8), patch_size=2, channels=1), num_classes=3)
    save_backbone(tmp_path, vit.bfloat16(), (0.5,), (0.25,))
    return vit, tmp_path


def test_round_trip(saved):
    vit, folder = saved
    loaded, mean, std = load_backbone(folder)
    assert (mean, std) == ((0.5,), (0.25,))
    assert loaded.config == vit.config
    assert not any(name.startswith("head") for name in loaded.state_dict())
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, vit.state_dict()[name].float())
    load_backbone(folder / "encoder.safetensors")


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match="holds no pretrained backbone"):
        load_backbone(tmp_path)


def test_truncated(saved):
    file = saved[1] / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_backbone(saved[1])


def test_another_architecture(saved):
    file = saved[1] / "encoder.json"
    about = json.loads(file.read_text())
    about["config"]["embed_dim"] = 64
    file.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="of another architecture"):
        load_backbone(saved[1])


@pytest.mark.parametrize("text", ["", "{}", '{"config": {"colour": 1}, "mean": [0], "std": [1]}'])
def test_damaged_description(saved, text):
    (saved[1] / "encoder.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_backbone(saved[1])
