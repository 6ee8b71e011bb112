"""Causal and joint runs from end to end: train, resume, fine-tune, draw."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from imagen_fast.data import Augmentation, Loader, digits, split
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import PixelBackbone, VisionTransformer, pixel_config
from imagen_fast.models.pixel_symbols import PixelSymbols
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.classification import finetune
from imagen_fast.tasks.export import export
from imagen_fast.tasks.generation import generate_images
from imagen_fast.tasks.likelihood import independent_bits
from imagen_fast.tasks.palette import find_palette
from imagen_fast.tasks.prediction import predict
from imagen_fast.tasks.pretrain import plan, pretrain
from imagen_fast.tasks.session import settings_of_run
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.train.logs import read_log


@pytest.fixture(scope="session")
def causal_settings():
    return PretrainSettings(
        data="digits",
        objective="causal",
        steps=20,
        batch_size=32,
        lr=2e-3,
        precision="fp32",
        device="cpu",
        checkpoint_every=10,
        tensorboard=False,
        quiet=True,
    )


@pytest.fixture(scope="session")
def causal_run(causal_settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "causal"
    return pretrain(replace(causal_settings, steps=120, checkpoint_every=60, out=str(out)))


def losses(folder) -> list[float]:
    return [line["loss"] for line in read_log(folder / "metrics.jsonl")]


def test_leaves_a_backbone_a_likelihood_and_completions(causal_run):
    run = causal_run.folder
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["bits_per_dim_uniform"] == pytest.approx(np.log2(17))
    assert figures["bits_per_dim"] < figures["bits_per_dim_independent"] < figures["bits_per_dim_uniform"]
    assert 0.3 < figures["linear"] <= 1
    assert any("bits per dimension" in note for note in causal_run.notes)
    for picture in ("completion.png", "loss.png"):
        with Image.open(run / picture) as image:
            assert np.asarray(image.convert("L")).std() > 5, "the picture is blank"
    backbone, *_ = load_backbone(run)
    assert isinstance(backbone, PixelBackbone)
    assert (backbone.config.levels, backbone.config.grid) == (17, (8, 8))


@pytest.mark.parametrize(
    "changes",
    [
        {"context": "quadrant"},
        {"context": "neighbourhood", "radius": 1},
        {"head": "mixture", "mixtures": 4},
        {"palette": 12},
        {"patch_size": 2, "precision": "bf16"},
        {
            "objective": "joint",
            "decoder_dim": 32,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "loss": "categorical",
        },
        {"objective": "joint", "decoder": "cross", "causal_weight": 0.3, "precision": "bf16"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_kind_runs_and_learns(causal_settings, tmp_path, changes):
    settings = replace(
        causal_settings, out=str(tmp_path / "run"), log_every=1, evaluate=False, **{"steps": 30, **changes}
    )
    pretrain(settings)
    seen = losses(tmp_path / "run")
    assert len(seen) == 30
    assert np.mean(seen[-5:]) < 0.97 * np.mean(seen[:5])


@pytest.mark.parametrize("changes", [{}, {"palette": 9, "precision": "bf16"}], ids=str)
def test_a_resumed_run_equals_an_unbroken_one_bit_by_bit(causal_settings, tmp_path, changes):
    whole = replace(causal_settings, out=str(tmp_path / "whole"), log_every=1, evaluate=False, **changes)
    pretrain(whole)
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    shutil.rmtree(broken / "checkpoints" / "step-00000020")
    result = pretrain(settings_of_run(PretrainSettings, broken, {"resume": True}))
    assert result.fitted.steps == 10
    files = [
        folder / "checkpoints/step-00000020/weights.safetensors" for folder in (tmp_path / "whole", broken)
    ]
    expected, actual = map(load_file, files)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


@pytest.mark.parametrize("objective", ["causal", "joint"])
def test_both_feed_finetune_and_predict(causal_settings, causal_run, short, tmp_path, objective):
    run = causal_run.folder
    if objective == "joint":
        run = tmp_path / "run"
        pretrain(replace(causal_settings, objective="joint", steps=60, out=str(run), evaluate=False))
    backbone, *_ = load_backbone(run)
    assert isinstance(backbone, VisionTransformer if objective == "joint" else PixelBackbone)
    tuned = finetune(replace(short, from_run=str(run), out=str(tmp_path / "tuned")))
    assert tuned.accuracy > 0.45
    picture = tmp_path / "seven.png"
    Image.fromarray(digits().images[7, 0]).save(picture)
    result = predict(tmp_path / "tuned", [picture])
    assert result.failed == []
    assert 0 < result.predictions[0].classes[0][1] <= 1


def test_the_head_alone_on_a_frozen_pixel_transformer(causal_run, short, tmp_path):
    tuned = finetune(
        replace(short, from_run=str(causal_run.folder), mode="head", out=str(tmp_path / "tuned"))
    )
    before, _, _ = load_backbone(causal_run.folder)
    after = load_file(tmp_path / "tuned/best.safetensors")
    for name, value in before.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(value.float(), after[name]), name
    assert tuned.accuracy > 0.3


def test_draws_new_images_and_completes_held_out_ones(causal_run, tmp_path):
    made = generate_images(causal_run.folder, out=tmp_path / "a", new=5, complete=3, seed=4)
    assert (made.new, made.completed, made.failed) == (5, 3, [])
    held = split(digits(), 0.1, seed=0)[1]
    for number in range(3):
        with Image.open(tmp_path / f"a/completed/{number:04}.png") as image:
            pixels = np.asarray(image)
        assert np.array_equal(pixels[:4], held.images[number, 0, :4])
    # The same at another batch size, and in another number.
    generate_images(causal_run.folder, out=tmp_path / "b", new=2, complete=0, seed=4, batch_size=1)
    for name in ("new/0000.png", "new/0001.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "b/completed.png").exists()
    for picture in ("new.png", "completed.png"):
        with Image.open(tmp_path / "a" / picture) as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_completes_files_and_names_those_it_cannot_read(causal_run, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(digits().images[3, 0]).save(good)
    bad.write_bytes(b"no picture")
    made = generate_images(causal_run.folder, [bad, good], out=tmp_path / "out", new=0, keep=0.25)
    assert (made.new, made.completed) == (0, 1)
    assert [path for path, _ in made.failed] == [str(bad)]


def test_only_a_causal_run_draws(pretrained):
    with pytest.raises(CheckpointError, match="only a run of the causal objective can draw images"):
        generate_images(pretrained.folder)


def test_a_pixel_transformer_has_no_other_format(causal_run, tmp_path):
    for format, sentence in (("timm", "timm has no pixel transformer"), ("vitmae", "a masked autoencoder")):
        with pytest.raises(InvalidInput, match=sentence):
            export(causal_run.folder, format, tmp_path / "out.safetensors")


def test_defaults_follow_from_the_data():
    settings = plan(PretrainSettings(data="digits", objective="causal")).settings
    assert (settings.model, settings.patch_size, settings.levels, settings.lr) == ("nano", 1, 17, 1e-3)
    assert (settings.holdout, settings.out) == (0.1, "runs/digits-nano-causal")
    near = plan(PretrainSettings(data="photos", objective="causal", context="neighbourhood")).settings
    assert (near.patch_size, near.radius, near.levels) == (4, 3, 256)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "contrastive"}, "objective must be one of masked, causal, joint"),
        ({"mask_ratio": 0.5}, "mask ratio is an option of the objective masked and joint, not of causal"),
        (
            {"objective": "masked", "palette": 8},
            "palette is an option of the objective causal, not of masked",
        ),
        ({"objective": "masked", "causal_weight": 2.0}, "causal weight is an option of the objective joint"),
        ({"context": "spiral"}, "context must be one of raster, quadrant, neighbourhood"),
        ({"radius": 2}, "a radius is of the context neighbourhood"),
        ({"palette": 8, "levels": 4}, "not both"),
        ({"palette": 8, "head": "mixture"}, "a palette's colours are not"),
        ({"palette": 400}, "a palette of 400 colours was asked for, but the images have 17"),
    ],
)
def test_bad_settings_are_told_before_a_run_exists(causal_settings, tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        pretrain(replace(causal_settings, out=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


def test_independent_bits_by_hand():
    config = pixel_config("nano", image_size=(1, 2), channels=1, levels=2, embed_dim=8, heads=2)
    source = digits()
    pixels = np.zeros((4, 1, 2, 2), np.uint8)
    # The loader makes squares: the count is of four pixels, of which the first is on in three of four images.
    pixels[:3, 0, 0, 0] = 255
    config = replace(config, image_size=(2, 2))
    seen = replace(source, images=pixels, labels=None, classes=None, native_size=2)
    held = replace(seen, images=pixels[:1])
    with (
        Loader(seen, 2, 2, Augmentation()) as a,
        Loader(held, 1, 2, Augmentation()) as b,
    ):
        bits = independent_bits(PixelSymbols(config), a, b)
    # Laplace: (3 + 1) / (4 + 2) for the first, (4 + 1) / (4 + 2) for the others.
    assert bits == pytest.approx(-(np.log2(4 / 6) + 3 * np.log2(5 / 6)) / 4)


def test_a_palette_holds_the_colours_that_are_there():
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30]], np.uint8)
    which = np.random.default_rng(0).integers(0, 3, (16, 4, 4))
    source = replace(
        digits(),
        images=colours[which].transpose(0, 3, 1, 2).copy(),
        channels=3,
        labels=None,
        classes=None,
        native_size=4,
    )
    with Loader(source, 8, 4, Augmentation()) as loader:
        found = find_palette(loader, 3)
    assert sorted(found.tolist()) == sorted(colours.tolist())
