from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_model

from imagen_fast.data import digits
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.classifier import Classifier
from imagen_fast.tasks.export import export
from imagen_fast.tasks.pretrain import pretrain

IMAGES = torch.from_numpy(digits().images[:4])


def timm_model(**changes):
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    shape = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 96, "depth": 4, "num_heads": 4}
    return vision_transformer.VisionTransformer(**shape, **changes).eval()


def test_backbone_to_timm(pretrained, tmp_path):
    told = export(pretrained.folder, "timm", tmp_path / "backbone.safetensors")
    assert "num_classes=0" in told
    theirs = timm_model(num_classes=0)
    load_model(theirs, tmp_path / "backbone.safetensors")
    vit, _, _ = load_backbone(pretrained.folder)
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(vit.eval()(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_classifier_to_timm(finetuned, tmp_path):
    export(finetuned.folder, "timm", tmp_path / "classifier.safetensors")
    theirs = timm_model(num_classes=10, global_pool="avg")
    load_model(theirs, tmp_path / "classifier.safetensors")
    ours = Classifier(finetuned.folder, torch.device("cpu"))
    expected = theirs(ours.normalize(IMAGES)).softmax(1)
    torch.testing.assert_close(ours.probabilities(IMAGES), expected, atol=1e-5, rtol=1e-5)


def test_autoencoder_to_vitmae(pretrained, tmp_path):
    transformers = pytest.importorskip("transformers")
    export(pretrained.folder, "vitmae", tmp_path / "vitmae")
    theirs = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "vitmae")
    assert theirs.config.mask_ratio == 0.62
    assert theirs.config.decoder_hidden_size == 32


def test_what_cannot_be_exported(pretrained, finetuned, small, tmp_path):
    with pytest.raises(InvalidInput, match="format must be one of timm, vitmae"):
        export(pretrained.folder, "onnx", tmp_path / "x")
    with pytest.raises(InvalidInput, match="only a pretraining run"):
        export(finetuned.folder, "vitmae", tmp_path / "x")
    with pytest.raises(CheckpointError):
        export(tmp_path, "timm", tmp_path / "x")
    pretrain(replace(small, loss="categorical", steps=1, out=str(tmp_path / "categorical")))
    with pytest.raises(InvalidInput, match="categorical loss"):
        export(tmp_path / "categorical", "vitmae", tmp_path / "x")
    assert not (tmp_path / "x").exists()
