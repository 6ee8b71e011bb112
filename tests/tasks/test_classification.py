from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from imagen_fast.data import NoLabels, digits, split
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.classification import finetune, layer_scale, plan
from imagen_fast.tasks.classifier import Classifier, best_so_far
from imagen_fast.tasks.prediction import predict
from imagen_fast.tasks.probe import SPLIT_SEED
from imagen_fast.tasks.session import settings_of_run
from imagen_fast.tasks.settings import FinetuneSettings
from imagen_fast.train.checkpoint import checkpoint_folders
from imagen_fast.train.logs import read_log


def accuracies(folder) -> list[float]:
    return [line["val_accuracy"] for line in read_log(folder / "metrics.jsonl") if "val_accuracy" in line]


def test_learns_and_leaves_its_report(finetuned):
    run = finetuned.folder
    assert finetuned.accuracy > 0.3  # ten classes, sixty steps
    seen = accuracies(run)
    # 1438 images in batches of 64: an epoch ends at steps 23 and 46; the last step is evaluated too.
    assert len(seen) == 3
    assert max(seen) == pytest.approx(finetuned.accuracy)
    report = (run / "report.txt").read_text()
    assert "precision" in report
    assert f"{finetuned.accuracy:.3f}" in report
    for picture in ("confusion.png", "loss.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 400
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["accuracy"] == finetuned.accuracy
    assert evaluation["train_images"] + evaluation["heldout_images"] == 1797


def test_prediction_of_files_equals_the_evaluation(finetuned, tmp_path):
    _, held = split(digits(), 0.2, seed=SPLIT_SEED)
    for number, image in enumerate(held.images):
        Image.fromarray(image[0]).save(tmp_path / f"{number:04d}.png")
    result = predict(finetuned.folder, [tmp_path], top_k=3)
    assert [p.path for p in result.predictions] == [str(tmp_path / f"{n:04d}.png") for n in range(len(held))]
    right = [p.classes[0][0] == str(label) for p, label in zip(result.predictions, held.labels, strict=True)]
    assert np.mean(right) == pytest.approx(finetuned.accuracy)
    for p in result.predictions:
        likely = [probability for _, probability in p.classes]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)


def test_prediction_goes_on_past_broken_images(finetuned, tmp_path):
    good, broken = tmp_path / "good.png", tmp_path / "broken.jpg"
    Image.fromarray(digits().images[0, 0]).save(good)
    broken.write_bytes(good.read_bytes()[:40])
    result = predict(finetuned.folder, [broken, good, tmp_path / "absent.png"])
    assert [p.path for p in result.predictions] == [str(good)]
    assert [path for path, _ in result.failed] == [str(broken), str(tmp_path / "absent.png")]


def test_the_head_alone_leaves_the_backbone_as_it_was(short, pretrained, tmp_path):
    result = finetune(replace(short, mode="head", from_run=str(pretrained.folder), out=str(tmp_path / "run")))
    weights = load_file(result.folder / "best.safetensors")
    for name, value in load_backbone(pretrained.folder)[0].state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(weights[name], value), name
    assert weights["head.weight"].abs().max() > 1e-3
    assert result.accuracy > 0.3


def test_from_scratch_with_few_labels(short, tmp_path):
    settings = replace(
        short, labels_per_class=4, out=str(tmp_path / "run"), label_smoothing=0.1, eval_every=10
    )
    result = finetune(replace(settings, precision="bf16"))
    assert json.loads((result.folder / "evaluation.json").read_text())["train_images"] == 40
    assert len(accuracies(result.folder)) == 6


def test_the_best_is_chosen_by_the_accuracy_that_is_told(short, tmp_path):
    """Working in bf16, too: by the float32 weights, as `predict` has them."""
    settings = replace(
        short, precision="bf16", model="nano", steps=24, eval_every=1, out=str(tmp_path / "run")
    )
    result = finetune(settings)
    assert best_so_far(result.folder) == (result.best_step, result.accuracy)
    assert max(accuracies(result.folder)) == result.accuracy
    # The last weights, from the checkpoint, judged as the best ones are.
    classifier = Classifier(result.folder, torch.device("cpu"))
    last = load_file(checkpoint_folders(result.folder)[-1] / "weights.safetensors")
    classifier.model.load_state_dict({name.removeprefix("model."): value for name, value in last.items()})
    _, held = split(digits(), 0.2, seed=SPLIT_SEED)
    guessed = classifier.probabilities(torch.from_numpy(held.images)).argmax(1).numpy()
    assert np.mean(guessed == held.labels) == result.last_accuracy


def test_a_resumed_run_equals_an_unbroken_one_bit_by_bit(short, pretrained, tmp_path):
    whole = replace(
        short, from_run=str(pretrained.folder), drop_path=0.2, precision="bf16", out=str(tmp_path / "whole")
    )
    finetune(whole)
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    shutil.rmtree(broken / "checkpoints" / "step-00000060")
    result = finetune(settings_of_run(FinetuneSettings, broken, {"resume": True}))
    assert result.fitted.steps == 30
    for file in ("weights.safetensors", "optimizer.safetensors"):
        expected, actual = (
            load_file(checkpoint_folders(run)[-1] / file) for run in (tmp_path / "whole", broken)
        )
        for name, value in expected.items():
            assert torch.equal(value, actual[name]), f"{file} {name}"
    assert (broken / "best.safetensors").read_bytes() == (
        tmp_path / "whole" / "best.safetensors"
    ).read_bytes()
    assert accuracies(broken) == accuracies(tmp_path / "whole")


def test_layer_scale():
    scale = layer_scale(12, 0.75)
    assert scale("model.head.weight") == scale("model.fc_norm.bias") == 1
    assert scale("model.blocks.11.attn.qkv.weight") == 0.75
    assert scale("model.blocks.0.norm1.bias") == pytest.approx(0.75**12)
    assert scale("model.patch_embed.proj.weight") == scale("model.cls_token") == pytest.approx(0.75**13)


def test_defaults_follow_from_the_backbone(pretrained):
    p = plan(FinetuneSettings(from_run=str(pretrained.folder)))
    assert p.settings.data == "digits"
    assert p.backbone.pool == "avg"
    assert p.settings.layer_decay == 1
    assert plan(replace(p.settings, image_size=16, out=None)).backbone.grid == (8, 8)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"mode": "half"}, InvalidInput, "mode must be"),
        ({"from_run": None, "mode": "head"}, InvalidInput, "give --from"),
        ({"model": "tiny"}, InvalidInput, "give them to train from scratch only"),
        ({"from_run": "/nowhere"}, CheckpointError, "holds no pretrained backbone"),
        ({"labels_per_class": 500}, ValueError, "fewer than 500"),
        ({"val": "photos"}, InvalidInput, "the classes of 'photos'"),
    ],
)
def test_bad_settings_are_told_before_a_run_exists(short, pretrained, tmp_path, changes, error, sentence):
    settings = replace(short, **{"from_run": str(pretrained.folder), **changes}, out=str(tmp_path / "run"))
    with pytest.raises(error, match=sentence):
        finetune(settings)
    assert not (tmp_path / "run").exists()


def test_data_without_labels(short, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(NoLabels):
        finetune(replace(short, data=str(tmp_path), out=str(tmp_path / "run")))
