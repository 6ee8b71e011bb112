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


@pytest.mark.parametrize("of", ["pretrained", "finetuned"])
def test_a_run_on_the_hub_says_what_is_known_of_it(of, request, tmp_path):
    hub = pytest.importorskip("imagen_fast.integrations.hub", exc_type=ImportError)
    run = request.getfixturevalue(of).folder
    told = export(run, "hub", tmp_path / "hub")
    assert f"VisionTransformer.from_pretrained('{tmp_path / 'hub'}')" in told
    model = hub.VisionTransformer.from_pretrained(tmp_path / "hub")
    if of == "finetuned":
        ours = Classifier(run, torch.device("cpu"))
        assert torch.equal(model(ours.normalize(IMAGES)).softmax(1), ours.probabilities(IMAGES))
    else:
        x = torch.randn(4, 1, 8, 8)
        assert torch.equal(model(x), load_backbone(run)[0].eval()(x))
    card = (tmp_path / "hub" / "README.md").read_text()
    steps = {"pretrained": "| steps | 20 |", "finetuned": "| steps | 60 |"}[of]
    for line in (
        "- self-supervised-learning",
        "| data | digits |",
        "| share of patches that are hidden | 0.62 |",
        steps,
        "he2022masked",
    ):
        assert line in card
    assert ("10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card) == (of == "finetuned")
    assert card.count("| data | digits |") == {"pretrained": 1, "finetuned": 2}[of]
    assert "Not known: " not in card
    # Where somebody's files lie is nobody else's business.
    for file in (tmp_path / "hub").iterdir():
        assert str(run.parent).encode() not in file.read_bytes(), file.name
    assert ("### The backbone before" in card) == (of == "finetuned")
    # What is known stays known.
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hub" / name).read_bytes(), name


def test_whole_models_of_runs_on_the_hub(pretrained, small, tmp_path):
    hub = pytest.importorskip("imagen_fast.integrations.hub", exc_type=ImportError)
    whole = hub.MaskedAutoencoder.from_run(pretrained.folder)
    assert "A masked autoencoder with the full decoder" in whole.generate_model_card().text
    backbone = load_backbone(pretrained.folder)[0]
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(whole.encoder(x), backbone(x))
    shapes = {"objective": "causal", "decoder_dim": None, "decoder_depth": None, "decoder_heads": None}
    causal = replace(small, **shapes, mask_ratio=None, patch_size=2, steps=1, out=str(tmp_path / "causal"))
    pretrain(causal)
    painter = hub.PixelTransformer.from_run(tmp_path / "causal")
    assert "| context of a prediction | raster |" in painter.generate_model_card().text
    assert painter.mean_features(IMAGES).shape == (4, 96)
    with pytest.raises(CheckpointError, match="left a VisionTransformer, not a PixelTransformer"):
        hub.PixelTransformer.from_run(pretrained.folder)
    with pytest.raises(InvalidInput, match="without a masked autoencoder"):
        hub.MaskedAutoencoder.from_run(tmp_path / "causal")


def test_what_cannot_be_exported(pretrained, finetuned, small, tmp_path):
    with pytest.raises(InvalidInput, match="format must be one of timm, vitmae, hub"):
        export(pretrained.folder, "onnx", tmp_path / "x")
    with pytest.raises(InvalidInput, match="only a pretraining run"):
        export(finetuned.folder, "vitmae", tmp_path / "x")
    with pytest.raises(CheckpointError):
        export(tmp_path, "timm", tmp_path / "x.safetensors")
    pretrain(replace(small, loss="categorical", steps=1, out=str(tmp_path / "categorical")))
    with pytest.raises(InvalidInput, match="categorical loss"):
        export(tmp_path / "categorical", "vitmae", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("format", "place", "sentence"),
    [
        ("timm", "weights", "the timm format is one file that ends in .safetensors, not "),
        ("timm", "folder.safetensors", "the timm format is one file that ends in .safetensors, not "),
        ("vitmae", "file", "the vitmae format is a folder, and .* is a file"),
        ("hub", "file", "the hub format is a folder, and .* is a file"),
        ("hub", "project", "has a README.md of its own, which the card of the model would replace"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_first(format, place, sentence, pretrained, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput, match=sentence):
        export(pretrained.folder, format, tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before
