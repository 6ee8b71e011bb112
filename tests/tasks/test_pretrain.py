from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from imagen_fast.data import digits
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.pretrain import plan, pretrain
from imagen_fast.tasks.session import default_folder, settings_of_run
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.train.checkpoint import checkpoint_folders
from imagen_fast.train.logs import read_log


def losses(folder) -> list[float]:
    return [line["loss"] for line in read_log(folder / "metrics.jsonl")]


def last_checkpoint(folder):
    folder = checkpoint_folders(folder)[-1]
    return {f: load_file(folder / f"{f}.safetensors") for f in ("weights", "optimizer")}


def test_leaves_backbone_pictures_log_and_accuracies(pretrained):
    run = pretrained.folder
    assert pretrained.fitted.steps == 20
    assert len(losses(run)) == 2
    for picture, least in (("reconstruction.png", (900, 350)), ("loss.png", (600, 400))):
        with Image.open(run / picture) as image:
            assert image.width >= least[0]
            assert image.height >= least[1]
            assert np.asarray(image.convert("L")).std() > 5, "the picture is blank"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation == pretrained.evaluation
    assert 0.3 < evaluation["knn"] <= 1
    assert 0.5 < evaluation["linear"] <= 1
    assert evaluation["train_images"] + evaluation["heldout_images"] == 1797
    assert pretrained.failed == []


def test_the_backbone_is_that_of_the_last_checkpoint(pretrained):
    vit, mean, std = load_backbone(pretrained.folder)
    weights = last_checkpoint(pretrained.folder)["weights"]
    for name, value in vit.state_dict().items():
        assert torch.equal(value, weights[f"model.encoder.{name}"])
    assert len(mean) == len(std) == vit.config.channels == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_unbroken_one_bit_by_bit(small, tmp_path, precision):
    whole = replace(small, precision=precision, out=str(tmp_path / "whole"), log_every=1)
    pretrain(whole)
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    # As if the run had been killed after its first checkpoint, while it wrote a later one and a log line.
    shutil.rmtree(broken / "checkpoints" / "step-00000020")
    (broken / "checkpoints" / ".step-00000020.partial").mkdir()
    (broken / "encoder.safetensors").unlink()
    with (broken / "metrics.jsonl").open("a") as log:
        log.write('{"step": 21, "lo')
    result = pretrain(settings_of_run(PretrainSettings, broken, {"resume": True}))
    assert result.fitted.steps == 10
    expected, actual = last_checkpoint(tmp_path / "whole"), last_checkpoint(broken)
    for file, tensors in expected.items():
        assert tensors.keys() == actual[file].keys()
        for name, value in tensors.items():
            assert torch.equal(value, actual[file][name]), f"{file} {name}"
    assert losses(broken) == losses(tmp_path / "whole")
    assert (broken / "encoder.safetensors").read_bytes() == (
        tmp_path / "whole/encoder.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "categorical"},
        {"loss": "categorical", "decoder": "cross", "precision": "bf16"},
        {"decoder": "cross", "predict": 0.5},
        {"decoder": "cross"},
        {"mask": "blockwise"},
        {"model": "tiny", "steps": 3, "image_size": 16, "patch_size": 4},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_objective_runs_and_learns(small, tmp_path, changes):
    settings = replace(small, out=str(tmp_path / "run"), log_every=1, **{"steps": 40, **changes})
    pretrain(settings)
    seen = losses(tmp_path / "run")
    assert len(seen) == settings.steps
    if settings.steps == 40:
        assert np.mean(seen[-5:]) < 0.97 * np.mean(seen[:5])
    with Image.open(tmp_path / "run" / "reconstruction.png") as image:
        assert image.width > 900


def test_defaults_follow_from_the_data():
    digits = plan(PretrainSettings(data="digits")).settings
    assert (digits.model, digits.image_size, digits.patch_size, digits.batch_size) == ("nano", 8, 2, 256)
    assert digits.lr == pytest.approx(1.5e-4)
    assert digits.levels == 17
    assert digits.steps == 100 * 8
    photos = plan(PretrainSettings(data="photos", decoder="cross", epochs=2)).settings
    assert (photos.model, photos.image_size, photos.patch_size) == ("tiny", 64, 8)
    assert photos.predict == pytest.approx(1 / 3)
    assert photos.out == "runs/photos-tiny"


def test_a_changed_setting_is_refused(pretrained):
    def resumed(**changes):
        return settings_of_run(
            PretrainSettings, pretrained.folder, {"resume": True, "quiet": True, **changes}
        )

    with pytest.raises(InvalidInput, match=r"mask ratio cannot change .* was 0\.62 .* now 0\.7"):
        pretrain(resumed(mask_ratio=0.7))
    with pytest.raises(InvalidInput, match="steps cannot change"):
        pretrain(resumed(epochs=3))
    assert pretrain(resumed(threads=1, log_every=7)).fitted.steps == 0


def test_a_run_is_never_overwritten(pretrained, small):
    with pytest.raises(InvalidInput, match="already holds a run"):
        pretrain(replace(small, out=str(pretrained.folder)))


def test_resuming_needs_a_run(small, tmp_path):
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        pretrain(replace(small, out=str(tmp_path / "none"), resume=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mask_ratio": 1.0}, "mask ratio must lie strictly between 0 and 1, not 1.0"),
        ({"mask_ratio": 0.0}, "mask ratio must lie strictly between 0 and 1"),
        ({"mask_ratio": 0.99}, "leaves none of 16 patches visible"),
        ({"patch_size": 3}, "a patch of 3 pixels does not divide an image of 8x8"),
        ({"model": "giant"}, "model must be one of nano"),
        ({"predict": 0.5}, "only the cross decoder"),
        ({"precision": "fp8"}, "precision must be"),
        ({"device": "tpu"}, "device must be"),
        ({"data": "letters"}, "neither a folder, nor tar shards, nor an"),
        ({"data": None}, "give the data"),
    ],
)
def test_bad_settings_are_told_before_a_run_exists(small, tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        pretrain(replace(small, out=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"lr": 0.0}, {"lr": float("nan")}, {"steps": 0}, {"warmup": 1.0}, {"epochs": 1.0, "steps": 1}]
)
def test_numbers_out_of_range(changes):
    with pytest.raises(InvalidInput):
        PretrainSettings(data="digits", **changes)


@pytest.fixture
def shards(tmp_path):
    """Digits in two shards; the third ends in the middle of its second image."""
    for number in range(3):
        with tarfile.open(tmp_path / f"set-{number}.tar", "w") as archive:
            for n in range(12 * number, 12 * number + 12):
                file = io.BytesIO()
                Image.fromarray(digits().images[n, 0]).save(file, "PNG")
                info = tarfile.TarInfo(f"{n}.png")
                info.size = file.tell()
                archive.addfile(info, io.BytesIO(file.getvalue()))
    whole = (tmp_path / "set-2.tar").read_bytes()
    (tmp_path / "set-2.tar").write_bytes(whole[:1700])
    return tmp_path / "set-{0..2}.tar"


def test_on_shards_it_resumes_exactly_and_lists_what_is_broken(small, shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = replace(small, data=str(shards), model="nano", image_size=8, patch_size=2, steps=6, out=None)
    settings = replace(settings, batch_size=8, checkpoint_every=3, evaluate=False)
    straight = pretrain(settings)
    assert str(straight.folder) == "runs/set-nano"
    assert [path for path, _ in straight.failed] == ["set-2.tar"]
    broken = shutil.copytree(straight.folder, tmp_path / "broken")
    shutil.rmtree(checkpoint_folders(broken)[-1])
    pretrain(settings_of_run(PretrainSettings, broken, {"resume": True}))
    wanted, found = last_checkpoint(straight.folder), last_checkpoint(broken)
    for file, tensors in wanted.items():
        assert all(torch.equal(found[file][name], value) for name, value in tensors.items())


def test_a_run_on_shards_is_called_by_what_comes_before_the_number():
    assert default_folder("/data/train-{0000..1281}.tar", "small") == "runs/train-small"
    assert default_folder("/data/birds/*.tar", "small") == "runs/birds-small"
    assert default_folder("/data/photos", "small") == "runs/photos-small"
