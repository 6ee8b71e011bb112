"""The examples: accelerated they learn as the originals do, and what they write is the originals'."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

for needed in ("accelerate", "lightning", "peft", "sklearn", "timm", "torchvision", "transformers"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "common.py")
TASKS = ("finetune", "pretrain")
MARK = "# + imagen_fast"
STEPS = 6
# Sums in another order: 6e-7 at most, in six steps.
CLOSE = 1e-5
# Of the way that the weights went, 1e-4 at most; with the scale of attention 1% off it is 1.6e-3 at least.
WEIGHTS_CLOSE = 1e-3
# In bf16, so many times as far as theirs ours may be from the original in fp32, and a little.
AS_FAR, A_LITTLE = 2.0, 2e-5


def case(name: str, script: str, *words: str, trial: bool = False) -> dict[str, Any]:
    quick = ("--steps", str(STEPS), "--batch-size", "8")
    return {"name": name, "script": script, "words": [*words, *quick], "trial": trial}


PLAIN = [case(f"{script} {task}", script, task) for script in SCRIPTS for task in TASKS]
LORA = case("lora", "hugging_face_trainer.py", "finetune", "--lora")
# From the weights that another case has pretrained, and images of a folder.
PRETRAINED = ("--model", "hugging_face_accelerate.py pretrain/original")
FURTHER = case("further", "hugging_face_accelerate.py", "finetune", "--data", "labelled", *PRETRAINED)
HALF = [
    # A trial leaves the random numbers of the data as they are.
    case("bare_loop.py finetune bf16", "bare_loop.py", "finetune", "--bf16", trial=True),
    case(
        "hugging_face_trainer.py pretrain bf16", "hugging_face_trainer.py", "pretrain", "--bf16", trial=True
    ),
]
CASES = [*PLAIN, LORA, FURTHER, *HALF]


def names(cases: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in cases]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / "labelled" / label).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8))
            image.save(folder / "labelled" / label / f"{number}.png")
    cases = [one | {"folder": str(folder / one["name"])} for one in CASES]
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-P", str(Path(__file__).with_name("run_examples.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def result(results, request) -> dict[str, Any]:
    found = next(one for one in results["cases"] if one["name"] == request.param)
    assert found["errors"] == ["", ""]
    return found


def losses(results: dict[str, Any], name: str, which: str) -> np.ndarray:
    folder = next(Path(one["folder"]) for one in results["cases"] if one["name"] == name)
    found = np.loadtxt(folder / which / "losses.txt")
    assert found.shape == (STEPS,)
    assert np.isfinite(found).all()
    return found


@pytest.mark.parametrize("result", names([*PLAIN, LORA, FURTHER]), indirect=True)
def test_step_by_step_the_loss_is_the_originals(results, result):
    original = losses(results, result["name"], "original")
    np.testing.assert_allclose(losses(results, result["name"], "accelerated"), original, rtol=CLOSE)
    assert len(set(original)) == STEPS


@pytest.mark.parametrize("result", names(HALF), indirect=True)
def test_in_bf16_it_is_as_near_as_theirs(results, result):
    exact = losses(results, result["name"].removesuffix(" bf16"), "original")
    theirs, ours = (
        abs(losses(results, result["name"], which) / exact - 1).max() for which in ("original", "accelerated")
    )
    assert theirs > 0, "it was not in bf16"
    assert ours <= AS_FAR * theirs + A_LITTLE


@pytest.mark.parametrize("result", names([one for one in CASES if not one["trial"]]), indirect=True)
def test_something_was_swapped(result):
    assert {"attention", "embedding"} <= set(result["swapped"])
    masked = "pretrain" in result["words"]
    assert masked == ("loss" in result["swapped"])


def test_the_originals_use_nothing_of_ours(results):
    assert results["reached"] == []


@pytest.fixture(scope="module")
def common():
    spec = importlib.util.spec_from_file_location("examples_common", EXAMPLES / "common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(result: dict[str, Any], which: str, plain: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights in what an example has written, under the names of the model."""
    folder, script = Path(result["folder"]) / which, result["script"]
    if script == "bare_loop.py":
        return torch.load(folder / "checkpoint.pt")["model"]
    if script == "lightning_trainer.py":
        state = torch.load(folder / "last.ckpt", weights_only=False)["state_dict"]
        return {name.removeprefix("model."): weight for name, weight in state.items()}
    if script == "timm_functions.py":
        return torch.load(folder / "last.pth.tar", weights_only=False)["state_dict"]
    # Its file has the names of the hub.
    loaded, told = type(plain).from_pretrained(folder, output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return loaded.state_dict()


def plain_model(common: Any, result: dict[str, Any]) -> torch.nn.Module:
    """As the example starts with it: its seed."""
    options = common.parser(None).parse_args(result["words"])
    torch.manual_seed(0)
    if result["script"] == "timm_functions.py" and options.task == "finetune":
        return common.timm_classifier(options, classes=10)
    return common.hugging_face(options)[0]


@pytest.mark.parametrize("result", names(PLAIN), indirect=True)
def test_what_it_writes_is_the_originals(common, result):
    plain = plain_model(common, result)
    start = {name: weight.clone() for name, weight in plain.state_dict().items()}
    ours, theirs = (written(result, which, plain) for which in ("accelerated", "original"))
    assert list(ours) == list(theirs)
    plain.load_state_dict(ours, strict=True)
    # Not one by one: Adam makes a step of the noise that is the gradient of a key's bias.
    assert distance(ours, theirs) < WEIGHTS_CLOSE * distance(start, theirs)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5


@pytest.mark.parametrize("result", ["lora"], indirect=True)
def test_adapters_go_into_the_original(common, result):
    from peft import PeftModel

    plain = plain_model(common, result | {"words": [word for word in result["words"] if word != "--lora"]})
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # keys that are missing
        loaded = PeftModel.from_pretrained(plain, Path(result["folder"]) / "accelerated")
    merged = loaded.merge_and_unload().state_dict()
    assert merged.keys() == before.keys()
    changed = {name for name in before if not torch.equal(merged[name], before[name])}
    assert len(changed) == 2 * 4 + 2  # of 4 layers queries and values, and the classifier


def test_images_are_normalised_as_the_model_was_trained(common, tmp_path):
    import transformers

    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    options = common.parser(None).parse_args(["pretrain", "--model", str(tmp_path)])
    assert common.normalisation(options, object()) == (common.MEAN, common.STD)
    transformers.ViTImageProcessor(image_mean=mean, image_std=std).save_pretrained(tmp_path)
    assert tuple(map(tuple, common.normalisation(options, object()))) == (mean, std)
    options = common.parser(None).parse_args(["finetune", "--model", "vit_tiny_patch16_224"])
    model = common.timm.create_model("vit_tiny_patch16_224", depth=1)
    assert common.normalisation(options, model) == (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_at_most_three_lines_are_added(script):
    lines = (EXAMPLES / script).read_text().splitlines()
    ours = [line for line in lines if "imagen_fast" in line]
    assert 1 <= len(ours) <= 3
    assert all(line.endswith(MARK) for line in ours)


def test_the_readme_names_every_example():
    table = re.findall(r"^\| \[(\w+\.py)\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == [(script, script) for script in SCRIPTS]
