"""`with imagen_fast.profile():` around a part of a program."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import imagen_fast
from imagen_fast.profiling import recording


def train(steps=12):
    model = torch.nn.Linear(3 * 32 * 32, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randn(8 * steps, 3, 32, 32)
    for (batch,) in DataLoader(TensorDataset(images), batch_size=8):
        model(batch.flatten(1)).square().mean().backward()
        optimizer.step()


def test_a_part_of_the_own_program(tmp_path, capsys):
    with imagen_fast.profile(tmp_path / "one", interval=0.05, window=0) as profiled:
        train()
    steps = profiled.recording.steps[0]
    # The first update begins the first step that is whole.
    assert len(steps.end) == 11
    assert set(steps.images) == {8}
    assert profiled.recording.exit_code is None
    assert profiled.recording.samples.time
    assert profiled.summary.steps == 11
    assert profiled.verdict.bottleneck
    assert (tmp_path / "one" / "profile.html").exists()
    assert recording.read(tmp_path / "one" / "profile.json")[0].steps == profiled.recording.steps
    assert "profile: " in capsys.readouterr().err
    # Once more, and what is outside is not seen.
    train(5)
    with imagen_fast.profile(tmp_path / "two", window=0) as again:
        train(3)
    assert len(again.recording.steps[0].end) == 2


def test_an_exception_passes_and_the_profile_is_kept(tmp_path):
    profiled = imagen_fast.profile(tmp_path, window=0)

    def fail():
        with profiled:
            train(2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert profiled.recording.steps
    assert (tmp_path / "profile.json").exists()


def test_steps_that_the_program_tells(tmp_path):
    with imagen_fast.profile(tmp_path, window=0) as profiled:
        for _ in range(4):
            profiled.step(images=5)
    assert profiled.recording.steps[0].images == [5, 5, 5]


def test_ceilings_of_a_step_that_is_given(tmp_path):
    calls = []

    def slow_batches():
        for _ in range(8):
            time.sleep(0.02)
            yield torch.zeros(3, 4)

    with imagen_fast.profile(tmp_path, window=0) as profiled:
        layer = torch.nn.Linear(4, 4)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

        def step(batch):
            calls.append(len(batch))
            layer(batch).sum().backward()
            optimizer.step()

        for batch in slow_batches():
            step(batch)
        profiled.measure_ceilings(lambda: step(torch.zeros(3, 4)))
        for batch in slow_batches():
            step(batch)
    found = profiled.recording.ceilings
    # What was measured is none of the program's steps, nor is the one that it interrupted.
    assert len(profiled.recording.steps[0].end) == 7 + 7
    assert len(calls) > 8 + 8
    assert found.as_is > 0.02 > 2 * found.in_memory
    assert found.graph is None
    assert "ceilings" not in profiled.recording.absent


def test_the_package_stays_light():
    code = "import imagen_fast, sys; print(sorted({'torch', 'numpy', 'psutil', 'rich'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
    assert not hasattr(imagen_fast, "no_such_name")
