"""The train suite on a model of two layers."""

from dataclasses import replace

import pytest
import torch

from imagen_fast.benchmarks import mae, record, train
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import hold
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.models import DecoderConfig, ViTConfig

CPU = torch.device("cpu")
ENCODER = ViTConfig(image_size=(32, 32), patch_size=4, embed_dim=64, depth=2, heads=2)
DECODER = DecoderConfig("full", embed_dim=64, depth=2, heads=2)
CASES = ("mae mini same-objective bf16 step", "mae mini cross 16x12 bf16 step")


pytestmark = pytest.mark.usefixtures("one_thread")


def small_contest(quick=True, apart=False):
    workload = mae.Workload(ENCODER, 4, CPU, checked=2)
    made = train.contest("mae mini", workload, quick, DECODER, queries=16)
    return replace(made, effort=Effort(0, 2, 2, 0), apart=apart)


def test_ours_is_correct_and_compared_with_each_peer():
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    contest = small_contest()
    results = hold(contest, CPU)
    assert {r.case: r.verdict.evidence for r in results if not r.verdict.correct} == {}
    made = record.make_record("train", True, {}, [results], contest.absent)
    pairs = {(r["case"], r["versus"]) for r in made["ratios"]}
    peers = ("transformers bf16", "transformers fp32", "timm bf16")
    assert pairs == {(case, peer) for case in CASES for peer in peers}
    assert [absence["peer"] for absence in made["absent"]] == ["torch.compile"]
    first = made["results"][0]
    assert (first["images"], first["image"], first["patch"], first["hidden_share"]) == (4, "32x32", 4, 0.75)


@pytest.mark.parametrize("apart", [False, True])
def test_without_peers_ours_is_measured_and_they_are_named(monkeypatch, apart):
    for name in ("TRANSFORMERS", "TIMM"):
        monkeypatch.setattr(train, name, replace(getattr(train, name), module="no_such_module_here"))
    contest = small_contest(apart=apart)
    results = hold(contest, CPU)
    assert [(r.case, r.implementation, r.verdict.correct) for r in results] == [
        (c, OURS, True) for c in CASES
    ]
    assert [absence.peer for absence in contest.absent] == ["transformers", "timm", "torch.compile"]


def test_a_full_run_adds_float32_the_other_cross_decoder_and_the_compiled_peers():
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    contenders = [(c.case, c.implementation) for c in small_contest(quick=False).contenders()]
    assert ("mae mini same-objective fp32 step", OURS) in contenders
    assert ("mae mini cross 16x8 bf16 step", OURS) in contenders
    assert {
        ("mae mini same-objective bf16 step", f"{peer} bf16 compiled") for peer in ("transformers", "timm")
    } <= set(contenders)
    assert len(set(contenders)) == len(contenders)


def test_a_wrong_gradient_is_found(monkeypatch):
    """A model whose masks differ from the peer's computes something else."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(mae, "masks_from_noise", lambda noise, ratio: masks(1 - noise, ratio))
    from imagen_fast.data.masks import masks_from_noise as masks

    results = hold(small_contest(), CPU)
    ours = results[0]
    assert not ours.verdict.correct
    assert ours.timing is None


@pytest.mark.parametrize("wrong", ["other patches are hidden", "other weights"])
def test_a_wrong_model_of_timm_is_found(monkeypatch, wrong):
    """Without transformers it is held against our own model in plain PyTorch."""
    pytest.importorskip("timm")
    from imagen_fast.benchmarks.peers import timm_mae

    monkeypatch.setattr(train, "TRANSFORMERS", replace(train.TRANSFORMERS, module="no_such_module_here"))
    right = [c for c in small_contest().contenders() if c.implementation == "timm bf16"]
    assert [c.prepare()[1].correct for c in right] == [True]
    if wrong == "other weights":
        monkeypatch.setattr(timm_mae.TimmMAE, "load_state_dict", lambda *_: None)
    else:
        forward = timm_mae.TimmMAE.forward
        monkeypatch.setattr(timm_mae.TimmMAE, "forward", lambda self, x, noise: forward(self, x, 1 - noise))
    (timm,) = [c for c in small_contest().contenders() if c.implementation == "timm bf16"]
    assert not timm.prepare()[1].correct


def test_quick_takes_small_only_and_full_every_size():
    assert [contest.name for contest in train.contests(CPU, quick=True)] == ["mae small"]
    names = [f"mae {size}{kind}" for size in ("tiny", "small", "base") for kind in ("", " cross")]
    assert [c.name for c in train.contests(CPU, quick=False)] == names


@pytest.mark.parametrize("same", [True, False])
def test_a_full_run_has_each_objective_of_ours_in_one_contest(same):
    """With the peer in both types beside it."""
    pytest.importorskip("transformers")
    contests = [c for c in train.contests(CPU, quick=False) if c.name.startswith("mae base")]
    contenders = list(contests[0 if same else 1].contenders())
    ours = [c.case for c in contenders if c.implementation == OURS]
    kinds = (
        ["same-objective bf16", "same-objective fp32"] if same else ["cross 49x12 bf16", "cross 49x8 bf16"]
    )
    assert ours == [f"mae base {kind} step" for kind in kinds]
    assert {"transformers bf16", "transformers fp32"} <= {c.implementation for c in contenders}


def test_on_the_cpu_each_has_a_process_of_its_own():
    assert all(contest.apart for contest in train.contests(CPU, quick=True))
    assert not any(contest.apart for contest in train.contests(torch.device("cuda"), quick=True))
