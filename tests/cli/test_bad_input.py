"""What a user can get wrong: one sentence, status 2, no traceback."""

from __future__ import annotations

import json
import shutil

import pytest

QUICK = ["--steps", 1, "--batch-size", 8, "--device", "cpu", "--no-tensorboard", "--no-eval"]


@pytest.fixture
def refused(call):
    """The sentence of a call that is refused."""

    def run(*words) -> str:
        told = call(*words)
        assert told.status == 2, told
        assert told.out == ""
        sentence = told.err.strip()
        assert sentence.startswith("error: ")
        assert "\n" not in sentence
        assert "Traceback" not in sentence
        return sentence.removeprefix("error: ")

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished pretraining run."""
    from imagen_fast.tasks.pretrain import pretrain
    from imagen_fast.tasks.settings import PretrainSettings

    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain(
        PretrainSettings(
            data="digits", out=str(out), steps=1, batch_size=8, quiet=True, tensorboard=False, evaluate=False
        )
    )
    return out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "/nowhere/at/all"], "'/nowhere/at/all' does not exist"),
        (["--data", "letters"], "embedded sets are digits, photos"),
        ([], "give the data"),
        (
            ["--data", "digits", "--model", "giant"],
            "model must be one of nano, tiny, small, base, large, huge",
        ),
        (["--data", "digits", "--patch-size", 3], "a patch of 3 pixels does not divide an image of 8x8"),
        (["--data", "digits", "--mask-ratio", 1.5], "mask ratio must lie strictly between 0 and 1, not 1.5"),
        (["--data", "digits", "--mask-ratio", 0], "mask ratio must lie strictly between 0 and 1, not 0.0"),
        (["--data", "digits", "--epochs", 3], "give epochs (3) or steps (1), not both"),
        (["--data", "digits", "--lr", -1], "lr must be above 0, not -1.0"),
        (["--data", "digits", "--patch-size", 1], "loss 'categorical'"),
        (["--data", "digits", "--loss", "categorical", "--levels", 1], "levels must be at least 2, not 1"),
        (["--data", "digits", "--loss", "categorical", "--levels", 300], "levels must be"),
        (["--data", "digits", "--decoder-dim", 66, "--decoder-heads", 3], "a width that 4 divides, not 66"),
        (["--data", "digits", "--decoder-depth", 0], "decoder depth must be at least 1, not 0"),
        (["--data", "digits", "--decoder-heads", 0], "decoder heads must be at least 1, not 0"),
    ],
)
def test_pretrain(refused, tmp_path, words, sentence):
    assert sentence in refused("pretrain", *words, *QUICK, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_without_a_usable_image(refused, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    assert "it is empty" in refused("pretrain", "--data", data, "--out", out, *QUICK)
    (data / "notes.txt").write_text("no picture")
    assert "holds no JPEG, PNG or WebP image" in refused("pretrain", "--data", data, "--out", out, *QUICK)
    (data / "broken.png").write_bytes(b"no picture either")
    tiny = ["--model", "nano", "--image-size", 64, "--quiet"]
    assert "none of the 1 images" in refused("pretrain", "--data", data, "--out", out, *QUICK, *tiny)
    assert json.loads((out / "failed.json").read_text())[0]["path"] == "broken.png"


def test_runs(refused, run, tmp_path):
    assert "already holds a run" in refused("pretrain", "--data", "digits", "--out", run, *QUICK)
    assert "not the folder of a run" in refused("pretrain", "--out", tmp_path / "none", "--resume")
    told = refused("pretrain", "--out", run, "--resume", "--mask-ratio", 0.5)
    assert told == f"mask ratio cannot change when a run is resumed: it was 0.75 in {run}, now 0.5"
    assert "holds another kind of run" in refused("finetune", "--out", run, "--resume")


def test_damaged_checkpoints(refused, run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = broken / "checkpoints" / "step-00000001" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refused("pretrain", "--out", broken, "--resume", "--quiet")
    encoder = broken / "encoder.safetensors"
    encoder.write_bytes(encoder.read_bytes()[:500])
    assert "is damaged" in refused("finetune", "--from", broken, "--out", tmp_path / "tuned")
    encoder.unlink()
    assert "holds no pretrained backbone" in refused(
        "finetune", "--from", broken, "--out", tmp_path / "tuned"
    )


def test_a_checkpoint_of_another_architecture(refused, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    about = json.loads((other / "encoder.json").read_text())
    about["config"]["depth"] = 6
    (other / "encoder.json").write_text(json.dumps(about))
    told = refused("finetune", "--from", other, "--out", tmp_path / "tuned")
    assert "is of another architecture: it lacks 'blocks.4." in told
    weights = next(run.glob("checkpoints/*/weights.safetensors"))
    config = json.loads((other / "run.json").read_text())
    for part in (config["settings"], config["decoder"]):
        part["decoder_depth" if "decoder_depth" in part else "depth"] = 1
    (other / "run.json").write_text(json.dumps(config))
    assert weights.exists()
    assert "of another architecture" in refused("pretrain", "--out", other, "--resume", "--quiet")


def test_finetuning_needs_labels(refused, run, pictures, tmp_path):
    told = refused("finetune", "--from", run, "--data", pictures / "dark", "--out", tmp_path / "tuned")
    assert "has no labels" in told


def test_predict_and_export(refused, run, tmp_path):
    assert "holds no classifier" in refused("predict", "--from", run, "image.png")
    assert "format must be one of" in refused(
        "export", "--from", run, "--format", "onnx", "--out", tmp_path / "x"
    )


def test_export_of_a_categorical_model(call, refused, tmp_path):
    run, quiet = tmp_path / "run", ["--loss", "categorical", "--quiet"]
    assert call("pretrain", "--data", "digits", "--out", run, *QUICK, *quiet).status == 0
    told = refused("export", "--from", run, "--format", "vitmae", "--out", tmp_path / "x")
    assert "categorical loss" in told


def test_the_parser_keeps_its_own_errors(call):
    told = call("pretrain", "--steps", "many")
    assert told.status == 2
    assert "--steps" in told.err
