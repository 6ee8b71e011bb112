"""Masked modelling of models of timm, from the command's settings to what timm loads again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.classification import finetune
from imagen_fast.tasks.classifier import Classifier
from imagen_fast.tasks.export import export
from imagen_fast.tasks.pretrain import plan, pretrain
from imagen_fast.tasks.session import settings_of_run
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.train.checkpoint import checkpoint_folders

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and light pictures of nothing."""
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    for name, least in (("dark", 0), ("light", 128)):
        (folder / name).mkdir()
        for number in range(16):
            pixels = draws.integers(least, least + 128, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    return PretrainSettings(
        data=str(folder),
        model="timm/test_resnet",
        image_size=32,
        steps=6,
        batch_size=8,
        lr=1e-3,
        precision="fp32",
        device="cpu",
        checkpoint_every=3,
        tensorboard=False,
        evaluate=False,
        quiet=True,
    )


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return pretrain(replace(settings, out=str(tmp_path_factory.mktemp("runs") / "run"), evaluate=True))


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)


def weights_of(folder):
    return load_file(checkpoint_folders(folder)[-1] / "weights.safetensors")


def test_leaves_what_every_run_leaves(run):
    with Image.open(run.folder / "reconstruction.png") as image:
        assert image.width > 900
        assert np.asarray(image.convert("L")).std() > 5, "the picture is blank"
    assert run.evaluation["train_images"] > 0
    assert run.evaluation["linear"] > 0.5
    about = json.loads((run.folder / "encoder.json").read_text())
    assert about["config"] == {"timm": "test_resnet", "image_size": [32, 32], "channels": 3}
    assert about["mean"] == list(timm.get_pretrained_cfg("test_resnet").mean)


def test_timm_loads_the_backbone_bitwise(run, images, tmp_path):
    file = tmp_path / "new" / "resnet.safetensors"
    told = export(run.folder, "timm", file)
    call = told.partition("load it with ")[2]
    backbone, mean, std = load_backbone(run.folder)
    x = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    overlay = {"file": str(run.folder / "encoder.safetensors"), "num_classes": 0}
    for theirs in (
        eval(call, {"timm": timm}),
        timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0),
    ):
        for name, value in theirs.state_dict().items():
            own = backbone.network.state_dict()[name]
            assert own.dtype == value.dtype
            assert torch.equal(own, value), name
        with torch.no_grad():
            assert torch.equal(theirs.eval().forward_features(x), backbone.eval()(x))
    features = timm.create_model(
        "test_resnet", features_only=True, pretrained=True, pretrained_cfg_overlay=overlay
    )
    with torch.no_grad():
        torch.testing.assert_close(features.eval()(x)[-1], backbone(x))


def test_only_batch_norms_differ_from_the_last_checkpoint(run):
    """They go by whole images then."""
    kept = weights_of(run.folder)
    for name, value in load_file(run.folder / "encoder.safetensors").items():
        same = torch.equal(value, kept[f"model.backbone.network.{name}"])
        assert same != name.endswith(("running_mean", "running_var", "num_batches_tracked")), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_unbroken_one_bit_by_bit(settings, tmp_path, precision):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain(replace(settings, precision=precision, out=str(whole)))
    shutil.copytree(whole, broken)
    shutil.rmtree(checkpoint_folders(broken)[-1])
    (broken / "encoder.safetensors").unlink()
    assert pretrain(settings_of_run(PretrainSettings, broken, {"resume": True})).fitted.steps == 3
    for name, value in weights_of(whole).items():
        assert torch.equal(weights_of(broken)[name], value), name
        assert "running" not in name or value.dtype == torch.float32
    files = [(folder / "encoder.safetensors").read_bytes() for folder in (whole, broken)]
    assert files[0] == files[1]


def test_starts_from_a_file_and_from_timms_weights(settings, tmp_path, monkeypatch):
    """A classifier's file is taken without its head; one step of next to nothing leaves it as it was."""
    torch.manual_seed(1)
    classifier = timm.create_model("test_resnet", num_classes=7)
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "start.pth")
    create = timm.create_model

    def as_downloaded(name, pretrained=False, **more):
        about = {"file": str(tmp_path / "start.pth"), "num_classes": 7}
        return create(name, pretrained, pretrained_cfg_overlay=about if pretrained else None, **more)

    monkeypatch.setattr(timm, "create_model", as_downloaded)
    for start in (str(tmp_path / "start.pth"), "pretrained"):
        out = tmp_path / f"run-{start.rpartition('/')[2]}"
        pretrain(
            replace(settings, steps=1, lr=1e-30, warmup=0.0, weight_decay=0.0, start=start, out=str(out))
        )
        left = load_file(out / "encoder.safetensors")
        assert left.keys() == classifier.state_dict().keys() - {"fc.weight", "fc.bias"}
        for name, _ in classifier.named_parameters():
            if not name.startswith("fc."):
                torch.testing.assert_close(left[name], classifier.state_dict()[name], rtol=0, atol=1e-20)


def test_fine_tunes_and_predicts(run, short, images, tmp_path):
    tuned = replace(short, data=None, from_run=str(run.folder), steps=4, batch_size=8, checkpoint_every=4)
    for mode in ("full", "head"):
        result = finetune(replace(tuned, mode=mode, out=str(tmp_path / mode)))
        assert 0 <= result.accuracy <= 1
    classifier = Classifier(tmp_path / "head", torch.device("cpu"))
    torch.testing.assert_close(classifier.probabilities(images).sum(1), torch.ones(4))
    for name, value in load_file(run.folder / "encoder.safetensors").items():
        assert torch.equal(classifier.model.network.state_dict()[name], value), name
    with pytest.raises(InvalidInput, match="a layer decay is of transformers of ours"):
        finetune(replace(tuned, layer_decay=0.7, out=str(tmp_path / "x")))
    with pytest.raises(InvalidInput, match="another classifier"):
        export(tmp_path / "head", "timm", tmp_path / "x.safetensors")


def test_defaults_follow_from_the_paper_and_the_image():
    resolved = plan(PretrainSettings(data="photos", model="timm/resnet50")).settings
    assert (resolved.mask_ratio, resolved.patch_size, resolved.image_size) == (0.6, 16, 64)
    assert resolved.out == "runs/photos-timm-resnet50"
    assert plan(PretrainSettings(data="photos", model="timm/vgg11", image_size=224)).settings.patch_size == 32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "timm/resnt50"}, "has no model 'resnt50'"),
        ({"objective": "joint"}, "timm/test_resnet learns by the objective masked only, not by joint"),
        ({"decoder": "cross"}, "decoder is an option of the objective masked and joint, not of timm/test_r"),
        ({"loss": "categorical"}, "loss is an option of the objective masked and joint, not of timm/test_r"),
        ({"model": "nano", "start": "pretrained"}, "no weights come with imagen_fast: start from a run, a f"),
        ({"image_size": 80}, "sides that are multiples of 32 pixels, not 80x80"),
        ({"mask_ratio": 0.99}, "leaves none of 16 patches visible"),
        ({"model": "timm/test_resnet.r160_in1k", "start": "/none.pth"}, "there is no file of weights /none"),
        (
            {"model": "timm/resnet10t", "start": "OTHER"},
            "is of another architecture: it has 'layer3.0.bn3.bias'",
        ),
        ({"start": "BROKEN"}, "holds no weights that timm can read"),
        ({"model": "timm/resnet10t.none"}, "no weights of that tag"),
    ],
)
def test_bad_settings_are_told_before_a_run_exists(settings, run, tmp_path, changes, sentence):
    (tmp_path / "broken.pth").write_text("no weights")
    files = {"OTHER": run.folder / "encoder.safetensors", "BROKEN": tmp_path / "broken.pth"}
    if changes.get("start") in files:
        changes = {**changes, "start": str(files[changes["start"]])}
    with pytest.raises((InvalidInput, CheckpointError), match=sentence):
        pretrain(replace(settings, out=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


def test_vitmae_takes_no_model_of_timm(run, tmp_path):
    with pytest.raises(InvalidInput, match="was trained as a model of timm"):
        export(run.folder, "vitmae", tmp_path / "x")
