from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from imagen_fast import __version__

TINY = [
    *("--model", "nano", "--image-size", 16, "--patch-size", 4, "--steps", 4, "--batch-size", 8),
    *("--device", "cpu", "--no-tensorboard"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_pretrain_finetune_predict_on_a_folder_with_broken_images(call, pictures, tmp_path):
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    told = call("pretrain", "--data", pictures, "--out", run, *TINY)
    assert told.status == 0, told.err
    assert "2 images or shards could not be read, or not to their end" in told.out
    assert "images/s" in told.out
    assert "k-NN" in told.out
    failed = json.loads((run / "failed.json").read_text())
    assert [f["path"] for f in failed] == ["dark/truncated.png", "light/empty.jpg"]
    assert all(f["reason"] for f in failed)
    assert (run / "reconstruction.png").exists()

    told = call(
        "finetune", "--from", run, "--out", tuned, "--steps", 4, "--batch-size", 8, "--no-tensorboard"
    )
    assert told.status == 0, told.err
    assert "epoch" in told.out
    assert "precision" in told.out

    told = call(
        "predict", "--from", tuned, pictures / "dark" / "0.png", pictures / "light", "--top-k", 2, "--json"
    )
    assert told.status == 1, "an image in the folder is broken"
    answer = json.loads(told.out)
    assert len(answer["predictions"]) == 9
    assert {name for name, _ in answer["predictions"][0]["classes"]} == {"dark", "light"}
    assert told.err.splitlines() == [
        f"error: {pictures / 'light' / 'empty.jpg'} cannot be read: the file is empty"
    ]

    told = call("predict", "--from", tuned, pictures / "dark" / "0.png")
    assert told.status == 0
    assert "0.png: " in told.out

    for format, out in (("timm", tmp_path / "backbone.safetensors"), ("vitmae", tmp_path / "vitmae")):
        told = call("export", "--from", run, "--format", format, "--out", out)
        assert told.status == 0, told.err
        assert out.exists()


def test_a_quiet_run_prints_nothing(call, tmp_path):
    told = call("pretrain", "--data", "digits", "--out", tmp_path / "run", *TINY, "--quiet", "--no-eval")
    assert (told.status, told.out, told.err) == (0, "", "")


def test_doctor(call):
    report = json.loads(call("doctor", "--json").out)
    assert report["machine"]["python"].startswith(f"3.{sys.version_info.minor}")
    ops = {(o["op"], o["device"], o["dtype"]): o for o in report["operations"]}
    for op in ("masked_patch_attention", "masked_pixel_mse"):
        assert ops[op, "cpu", "float32"]["backend"] in ("cpu", "reference")
        gpu = ops[op, "cuda", "bfloat16"]
        assert (gpu["backend"] == "triton") != bool(gpu["refused"])
    told = call("doctor")
    assert told.status == 0
    assert "masked_pixel_mse" in told.out


def test_bench_passes_its_words_on(call, monkeypatch):
    module = type(sys)("imagen_fast.benchmarks.cli")
    seen = []
    module.main = lambda words: seen.append(words) or 3
    package = type(sys)("imagen_fast.benchmarks")
    package.cli = module
    monkeypatch.setitem(sys.modules, "imagen_fast.benchmarks", package)
    monkeypatch.setitem(sys.modules, "imagen_fast.benchmarks.cli", module)
    assert call("bench", "train", "--json", "f", "--help").status == 3
    assert seen == [["train", "--json", "f", "--help"]]


def test_version_and_help_come_without_torch():
    code = (
        "import sys; from imagen_fast.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    for words in (["--version"], ["--help"], ["pretrain", "--help"]):
        told = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=ENVIRONMENT, check=True
        )
        assert told.stderr == ""
        assert (__version__ if words == ["--version"] else "--help") in told.stdout


def test_every_setting_has_its_option(call):
    for command, words in (
        (
            "pretrain",
            ("--mask-ratio", "--decoder-dim", "--predict", "--no-eval", "--no-tensorboard", "--compile"),
        ),
        ("finetune", ("--from", "--labels-per-class", "--layer-decay", "--val", "--no-augment", "--mode")),
    ):
        told = call(command, "--help")
        for word in words:
            assert word in told.out


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(call, tmp_path):
    run = tmp_path / "run"
    words = [
        "pretrain",
        "--data",
        "digits",
        "--steps",
        100000,
        "--batch-size",
        8,
        "--checkpoint-every",
        5,
        "--out",
        run,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "imagen_fast", *map(str, words), "--device", "cpu", "--no-tensorboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A shell that runs the tests in the background has its children ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not list(run.glob("checkpoints/step-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"imagen-fast pretrain --out {run} --resume" in err
