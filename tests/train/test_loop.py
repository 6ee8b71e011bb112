from __future__ import annotations

import pytest
import torch
from torch import nn

from imagen_fast.data import Loader, digits
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import decoder_config, vit_config
from imagen_fast.objectives import MaskedConfig, MaskedObjective, Output
from imagen_fast.objectives.pixels import PixelNormalizer
from imagen_fast.train import Diverged, FitConfig, Run, fit, load_checkpoint

CPU = torch.device("cpu")


class Spoiled(nn.Module):
    """A finite loss whose gradient is not, at one step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.at = at

    def forward(self, batch, step):
        factor = float("inf") if step == self.at else 1.0
        w = self.w
        w.register_hook(lambda g: g * factor)
        return Output(w.square().sum())


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(20, 12), (1, 5), (7, 4)])
def test_the_newest_checkpoint_is_never_a_spoiled_one(tmp_path, log_every, checkpoint_every):
    run = Run.create(tmp_path / "run", {"kind": "test"})
    config = FitConfig(steps=40, lr=1e-3, log_every=log_every, checkpoint_every=checkpoint_every)
    with (
        Loader(digits(), 4, 8, threads=1) as loader,
        pytest.raises(Diverged, match="try a lower learning rate"),
    ):
        fit(Spoiled(11), loader, config, device=CPU, run=run, quiet=True)
    if log_every == 1 or checkpoint_every < 12:
        assert load_checkpoint(run.folder).step < 12
        assert bool(torch.isfinite(load_checkpoint(run.folder).weights["w"]).all())
    else:
        assert not (run.folder / "checkpoints").exists()


def test_compiled_training_equals_eager(monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiler(module, backend="aot_eager"))
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        with Loader(digits(), 8, 8, threads=1) as loader:
            objective = MaskedObjective(
                vit_config("nano", image_size=(8, 8), patch_size=2, channels=1, depth=1),
                decoder_config("nano", depth=1),
                MaskedConfig(),
                loader.mean,
                loader.std,
            )
            config = FitConfig(steps=3, lr=1e-3, compile=compiled, log_every=1)
            losses.append(fit(objective, loader, config, device=CPU, quiet=True).last_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_cast_does_not_round_the_statistics():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalize = PixelNormalizer(mean, std)
    exact = normalize.mean.clone(), normalize.std.clone()
    normalize.to(torch.bfloat16)
    assert torch.equal(normalize.mean, exact[0])
    assert torch.equal(normalize.std, exact[1])


def test_what_an_objective_cannot_be_is_one_sentence():
    for levels in (0, 1, 257):
        with pytest.raises(InvalidInput, match="levels must be 2 to 256"):
            MaskedConfig(levels=levels)
    pixel = vit_config("nano", image_size=(8, 8), patch_size=1, channels=1)
    with pytest.raises(InvalidInput, match="no variance"):
        MaskedObjective(pixel, decoder_config("nano"), MaskedConfig(), (0.5,), (0.5,))
    MaskedObjective(pixel, decoder_config("nano"), MaskedConfig(loss="categorical"), (0.5,), (0.5,))


def test_without_clipping_a_spoiled_checkpoint_is_not_kept_either(tmp_path):
    run = Run.create(tmp_path / "run", {"kind": "test"})
    config = FitConfig(steps=40, lr=1e-3, clip=None, log_every=20, checkpoint_every=4)
    with Loader(digits(), 4, 8, threads=1) as loader, pytest.raises(Diverged, match="no number at step 12"):
        fit(Spoiled(11), loader, config, device=CPU, run=run, quiet=True)
    kept = load_checkpoint(run.folder)
    assert kept.step == 8
    assert bool(torch.isfinite(kept.weights["w"]).all())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda state: state.pop("rng"), "lacks 'rng'"),
        (lambda state: state.update(rng=torch.zeros(3, dtype=torch.uint8)), "random state"),
        (lambda state: state.pop("steps"), "lacks 'steps'"),
        (lambda state: state.pop("second.w"), "lacks 'second.w'"),
    ],
)
def test_a_foreign_state_of_the_optimiser_is_one_sentence(tmp_path, spoil, sentence):
    run = Run.create(tmp_path / "run", {"kind": "test"})
    config = FitConfig(steps=2, lr=1e-3)
    with Loader(digits(), 4, 8, threads=1) as loader:
        fit(Spoiled(99), loader, config, device=CPU, run=run, quiet=True)
        kept = load_checkpoint(run.folder)
        spoil(kept.optimizer)
        with pytest.raises(CheckpointError, match=sentence) as caught:
            fit(Spoiled(99), loader, config, device=CPU, resume=kept, quiet=True)
    assert "\n" not in str(caught.value)


def test_what_was_waited_before_it_began_is_not_the_loops():
    with Loader(digits(), 4, 8, threads=1) as loader:
        loader.waited = 1e6
        result = fit(Spoiled(99), loader, FitConfig(steps=2, lr=1e-3), device=CPU, quiet=True)
    assert 0 <= result.data_wait < 1
