"""Masked pretraining that goes on from weights that are there: of a run, of transformers, of timm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, VisionTransformer, ViTConfig
from imagen_fast.models.convert import save_vitmae
from imagen_fast.models.positions import resize_positions
from imagen_fast.tasks.folder import save_folder
from imagen_fast.tasks.pretrain import pretrain
from imagen_fast.tasks.start import load_vit_start

SHAPES = ViTConfig((16, 16), 4, 3, 32, 2, 2)


def encoder(**changes):
    torch.manual_seed(0)
    return VisionTransformer(replace(SHAPES, **changes))


@pytest.fixture
def trained():
    torch.manual_seed(1)
    return VisionTransformer(replace(SHAPES, positions="learned"), num_classes=5)


def assert_taken(found, wanted):
    for name, value in found.state_dict().items():
        assert torch.equal(value, wanted.state_dict()[name]), name


def test_of_a_file_without_its_head(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "vit.safetensors")
    found = encoder()
    load_vit_start(found, str(tmp_path / "vit.safetensors"))
    assert_taken(found, trained)


def test_of_what_he_et_al_published(trained, tmp_path):
    """The file of an autoencoder: its decoder is left out."""
    pytest.importorskip("timm")
    mae = MaskedAutoencoder(SHAPES, DecoderConfig("full", 16, 1, 2))
    theirs = {name.removeprefix("encoder."): w for name, w in mae.state_dict().items()}
    theirs = {name.replace("decoder.", "decoder_"): w for name, w in theirs.items()}
    torch.save({"model": theirs | {"mask_token": torch.zeros(1, 1, 16)}}, tmp_path / "mae.pth")
    found = encoder()
    load_vit_start(found, str(tmp_path / "mae.pth"))
    assert_taken(found, mae.encoder)


def test_of_a_folder_of_transformers_and_of_ours(trained, tmp_path):
    mae = MaskedAutoencoder(SHAPES, DecoderConfig("full", 16, 1, 2))
    save_vitmae(mae, tmp_path / "vitmae")
    save_folder(trained, tmp_path / "hub", {})
    for folder, wanted in (("vitmae", mae.encoder), ("hub", trained)):
        found = encoder()
        load_vit_start(found, str(tmp_path / folder))
        assert_taken(found, wanted)


def test_of_transformers_vit(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 32, "intermediate_size": 128}
    config = transformers.ViTConfig(
        num_hidden_layers=2, num_attention_heads=2, layer_norm_eps=SHAPES.norm_eps, **sizes
    )
    theirs = transformers.ViTForImageClassification(config)
    theirs.save_pretrained(tmp_path)
    found, images = encoder().eval(), torch.randn(2, 3, 16, 16)
    load_vit_start(found, str(tmp_path))
    hidden = theirs.eval().vit(images).last_hidden_state
    torch.testing.assert_close(found.forward_features(images), hidden, rtol=1e-4, atol=1e-4)


def test_positions_are_resized_and_a_norm_after_pooling_comes_before_it(tmp_path):
    torch.manual_seed(1)
    classifier = VisionTransformer(replace(SHAPES, positions="learned", pool="avg"), num_classes=5)
    torch.nn.init.uniform_(classifier.fc_norm.weight)
    save_file(classifier.state_dict(), tmp_path / "vit.safetensors")
    found = encoder(image_size=(24, 16))
    load_vit_start(found, str(tmp_path / "vit.safetensors"))
    assert torch.equal(found.norm.weight, classifier.fc_norm.weight)
    assert torch.equal(found.pos_embed, resize_positions(classifier.pos_embed, (4, 4), (6, 4)))


def test_a_run_goes_on_from_another(pretrained, small, tmp_path):
    """One step of next to nothing leaves the encoder as it was; resumed, it is not loaded again."""
    still = replace(small, steps=1, lr=1e-30, warmup=0.0, weight_decay=0.0, start=str(pretrained.folder))
    for objective in ("masked", "joint"):
        run = pretrain(replace(still, objective=objective, out=str(tmp_path / objective)))
        wanted = load_file(pretrained.folder / "encoder.safetensors")
        for name, value in load_file(run.folder / "encoder.safetensors").items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-20)


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("pretrained", "no weights come with imagen_fast"),
        ("nothing.safetensors", "there is no file of weights"),
        ("FOLDER", "is damaged or missing"),
        ("DEEPER", "is of another architecture: it has 'blocks.2"),
    ],
)
def test_what_cannot_be_started_from_is_told_before_a_run_exists(start, sentence, small, tmp_path):
    out = tmp_path / "run"
    if start == "FOLDER":
        start = str(tmp_path)
    if start == "DEEPER":
        start = str(tmp_path / "deeper.safetensors")
        save_file(encoder(depth=3).state_dict(), start)
        with pytest.raises(CheckpointError, match=sentence):
            load_vit_start(encoder(), start)
        return
    with pytest.raises((CheckpointError, InvalidInput), match=sentence):
        pretrain(replace(small, start=start, out=str(out)))
    assert not out.exists()
