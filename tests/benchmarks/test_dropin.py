"""The dropin suite on models of two layers."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from imagen_fast.benchmarks import classification, dropin, mae, pixel_model, record, report
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import hold
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.models import DecoderConfig, ViTConfig

CPU = torch.device("cpu")
ENCODER = ViTConfig(image_size=(32, 32), patch_size=8, embed_dim=64, depth=2, heads=2)
DECODER = DecoderConfig("full", embed_dim=64, depth=2, heads=2)
PIXELS = pixel_model.imagegpt_config(width=64, depth=2, heads=2, side=8, colours=16)
TYPES = [torch.bfloat16, torch.float32]

pytestmark = pytest.mark.usefixtures("one_thread")


def case(name="vit"):
    if name == "vitmae":
        return dropin.vitmae("vitmae mini", mae.Workload(ENCODER, 2, CPU, checked=2), DECODER)
    if name == "vit":
        return dropin.vit("vit mini", classification.Workload(ENCODER, 2, CPU, classes=10))
    return dropin.imagegpt(pixel_model.Workload(PIXELS, 2, CPU))


def small_contest(name="vit", dtype=torch.bfloat16, quick=True, apart=False):
    return replace(dropin.contest(case(name), dtype, quick), effort=Effort(0, 2, 2, 0), apart=apart)


def ours_of(contest):
    return next(contender for contender in contest.contenders() if contender.implementation == OURS)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["vitmae", "vit", "imagegpt"])
def test_an_accelerated_model_is_correct_and_compared_with_the_original(name, dtype):
    peer = "timm" if name == "vit" else "transformers"
    pytest.importorskip(peer)
    contest = small_contest(name, dtype)
    results = hold(contest, CPU)
    assert {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct} == {}
    made = record.make_record("dropin", True, {}, [results], contest.absent)
    (ratio,) = made["ratios"]
    assert (ratio["case"], ratio["versus"]) == (made["results"][0]["case"], peer)
    ours, original = made["results"]
    assert (ours["implementation"], original["implementation"]) == (OURS, peer)
    for fact in ("images", "operations", "bytes", "exponentials", "precision", "optimizer"):
        assert ours[fact] == original[fact]
    assert ours["evidence"]["fp32 after undo beside plain fp32, gradient"] == {"error": 0.0, "bound": 0.0}
    assert f"{peer}, ms (ratio)" in report.markdown(made)


def test_each_process_tells_what_it_swapped(tmp_path):
    pytest.importorskip("timm")
    results = hold(small_contest(apart=True), CPU)
    ours, original = record.make_record("dropin", True, {}, [results], ())["results"]
    told = json.loads(json.dumps(ours["evidence"]["accelerate"]))
    assert any("attention" in line for line in told)
    assert "accelerate" not in original["evidence"]
    assert ours["apart"]
    assert ours["median"] > 0


class Wrong:
    """Acceleration that changes what a model computes, or that does not undo."""

    def __init__(self, model, factor, undoes):
        self.undoes = undoes
        self.hook = model.register_forward_hook(lambda module, given, made: made * factor)

    def undo(self):
        if self.undoes:
            self.hook.remove()

    def __str__(self):
        return "swapped"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("factor", "undoes", "wrong"),
    [
        (1.0, True, None),
        (1.01, True, "fp32 beside plain fp32"),
        # Within the bound of what is the same.
        (1 + 2e-7, False, "fp32 after undo beside plain fp32"),
    ],
)
def test_a_wrong_gradient_or_a_wrong_undo_is_found(monkeypatch, dtype, factor, undoes, wrong):
    pytest.importorskip("timm")
    monkeypatch.setattr(dropin, "accelerate", lambda model, trial=True: Wrong(model, factor, undoes))
    verdict = ours_of(small_contest(dtype=dtype)).prepare()[1]
    beyond = {
        name
        for name, found in verdict.evidence.items()
        if isinstance(found, dict) and "bound" in found and found["error"] > found["bound"]
    }
    assert verdict.correct == (wrong is None)
    assert any(name.startswith(wrong) for name in beyond) if wrong else not beyond


def test_what_is_timed_is_what_a_trial_chose_and_what_is_checked_too_is_everything(monkeypatch):
    pytest.importorskip("timm")
    asked = []

    def accelerate(model, trial=True):
        asked.append(trial)
        return SimpleNamespace(undo=lambda: None)

    monkeypatch.setattr(dropin, "accelerate", accelerate)
    ours = ours_of(small_contest())
    ours.prepare()
    assert sorted(asked) == [False, True]
    asked.clear()
    ours.build()
    assert asked == [True]


def test_without_the_peer_there_is_nothing_to_accelerate(monkeypatch):
    monkeypatch.setattr(dropin, "TIMM", replace(dropin.TIMM, module="no_such_module_here"))
    contest = small_contest()
    assert hold(contest, CPU) == []
    assert [absence.peer for absence in contest.absent] == ["timm", "torch.compile"]


def test_a_full_run_adds_float32_compiled_models_and_memory_that_is_kept():
    pytest.importorskip("timm")
    half, full = (
        [(c.case, c.implementation) for c in small_contest(dtype=dtype, quick=False).contenders()]
        for dtype in TYPES
    )
    step = "vit mini B2 bf16 step"
    assert half == [
        (step, OURS),
        ("vit mini B2 bf16 compiled step", OURS),
        (step, "timm"),
        (step, "timm compiled"),
        (step, "timm, memory kept"),
    ]
    assert full == [("vit mini B2 fp32 step", OURS), ("vit mini B2 fp32 step", "timm")]


def test_the_contests_of_a_run():
    quick = [contest.name for contest in dropin.contests(CPU, quick=True)]
    assert quick == ["vitmae small B2 bf16", "vit small B2 bf16", "imagegpt 256x8 B1 bf16"]
    contests = list(dropin.contests(CPU, quick=False))
    models = ("vitmae small B16", "vitmae base B8", "vit small B8", "imagegpt 256x8 B2")
    assert [c.name for c in contests] == [f"{model} {kind}" for model in models for kind in ("bf16", "fp32")]
    assert all(contest.apart for contest in contests)
    on_gpu = list(dropin.contests(torch.device("cuda"), quick=False))
    assert len(on_gpu) == len(contests)
    assert not any(contest.apart for contest in on_gpu)
