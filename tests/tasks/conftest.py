"""Small runs on the digits, made once and shared by the tests of the tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from imagen_fast.tasks.classification import finetune
from imagen_fast.tasks.pretrain import pretrain
from imagen_fast.tasks.settings import FinetuneSettings, PretrainSettings


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models of this size are no faster on more threads, and far slower where other work keeps cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small():
    """A pretraining of a second."""
    return PretrainSettings(
        data="digits",
        steps=20,
        batch_size=32,
        lr=1e-3,
        mask_ratio=0.62,
        decoder_dim=32,
        decoder_depth=1,
        decoder_heads=2,
        precision="fp32",
        device="cpu",
        checkpoint_every=10,
        tensorboard=False,
        evaluate=False,
        quiet=True,
    )


@pytest.fixture(scope="session")
def pretrained(small, tmp_path_factory):
    """The result of a pretraining run."""
    return pretrain(replace(small, out=str(tmp_path_factory.mktemp("runs") / "pretrained"), evaluate=True))


@pytest.fixture(scope="session")
def short():
    """A fine-tuning of a second, but for its --from and --out."""
    return FinetuneSettings(
        data="digits",
        steps=60,
        batch_size=64,
        lr=1e-3,
        augment=False,
        precision="fp32",
        device="cpu",
        checkpoint_every=30,
        tensorboard=False,
        quiet=True,
    )


@pytest.fixture(scope="session")
def finetuned(short, pretrained, tmp_path_factory):
    """The result of a fine-tuning run."""
    out = tmp_path_factory.mktemp("runs") / "finetuned"
    return finetune(replace(short, from_run=str(pretrained.folder), out=str(out)))
