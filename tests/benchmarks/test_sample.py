"""The suite of sampling on models of two layers and images of a few pixels."""

from dataclasses import replace

import pytest
import torch

from imagen_fast.benchmarks import pixel_model, record, sample, sample_check
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import hold
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.pixel_model import imagegpt_config
from imagen_fast.models import PixelConfig, sampling
from imagen_fast.ops import Neighbourhood, Quadrant

CPU = torch.device("cpu")
ONCE = Effort(0, 2, 2, 0)
CONFIG = imagegpt_config(32, 2, 2, side=4, colours=16)


pytestmark = pytest.mark.usefixtures("one_thread")


def wrong(results):
    return {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct}


def versus(results):
    return {(r["case"], r["versus"]) for r in record.make_record("sample", True, {}, [results], [])["ratios"]}


def test_in_raster_order_ours_is_correct_and_compared_with_generate():
    pytest.importorskip("transformers")
    results = hold(sample.raster("sample mini", CONFIG, 3, CPU, True, ONCE), CPU)
    assert wrong(results) == {}
    assert versus(results) == {("sample mini 4x4 B3 raster", "transformers generate")}
    assert all("cached beside uncached" in r.verdict.evidence for r in results)


def test_without_transformers_ours_is_measured_and_the_peer_named(monkeypatch):
    monkeypatch.setattr(sample, "TRANSFORMERS", replace(sample.TRANSFORMERS, module="no_such_module_here"))
    contest = sample.raster("sample mini", CONFIG, 3, CPU, True, ONCE)
    results = hold(contest, CPU)
    assert [(r.implementation, r.verdict.correct) for r in results] == [(OURS, True)]
    assert [absence.peer for absence in contest.absent] == ["transformers", "torch.compile"]


def test_a_full_run_has_generate_compiled_too():
    pytest.importorskip("transformers")
    names = [
        [c.implementation for c in sample.raster("sample mini", CONFIG, 3, CPU, quick, ONCE).contenders()]
        for quick in (True, False)
    ]
    assert names[1] == [*names[0], "transformers generate compiled"]


def test_the_wavefront_is_correct_and_compared_with_our_own_raster():
    results = hold(sample.wavefront("sample mini", CONFIG, CPU, ONCE), CPU)
    assert wrong(results) == {}
    assert versus(results) == {("sample mini 4x4 B1 quadrant", f"{OURS} raster")}
    assert [r.facts["steps"] for r in results] == [7, 16]
    assert all(r.verdict.evidence["as a pixel at a time"] for r in results)


def test_a_wrong_context_is_found(monkeypatch):
    """Held against transformers: our own forward would have it too."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(PixelConfig, "attended", Neighbourhood(0))  # each token sees itself
    ours = hold(sample.raster("sample mini", CONFIG, 3, CPU, True, ONCE), CPU)[0]
    assert not ours.verdict.correct
    assert ours.timing is None


def test_values_that_do_not_exist_are_found(monkeypatch):
    monkeypatch.setattr(sample_check, "generate", lambda *_, **__: torch.tensor([16]))
    model = pixel_model.random_model(CONFIG).eval()
    verdict = sample_check.cached_logits(model, lambda pixels: sample_check.plain(model, pixels))
    assert not verdict.correct
    assert verdict.evidence["values in range"] is False


def test_an_image_that_the_order_of_steps_changes_is_found(monkeypatch):
    draw = sampling.generate

    def hasty(model, images, *, seed, one_by_one=False):
        return draw(model, images, seed=seed + one_by_one)

    monkeypatch.setattr(sample_check, "generate", hasty)
    model = pixel_model.random_model(replace(CONFIG, context=Quadrant())).eval()
    assert not sample_check.one_by_one(model).correct


def test_their_logits_are_checked_where_they_draw(monkeypatch):
    """A static cache that does not know which of its places are empty."""
    transformers = pytest.importorskip("transformers")
    from imagen_fast.benchmarks.peers import imagegpt

    model = imagegpt.random_model(CONFIG).eval()
    assert sample_check.their_cached_logits(model, CONFIG).correct
    generate = imagegpt.generate
    monkeypatch.setattr(
        imagegpt, "generate", lambda *args, **more: generate(*args, cache_implementation="static", **more)
    )
    assert hasattr(transformers, "StaticCache")
    assert not sample_check.their_cached_logits(model, CONFIG).correct


def test_facts_are_those_of_the_steps():
    """Two by two pixels: 1, 2, 2 and 4 are seen, in three steps that read 1, 3 and 4 keys."""
    small = replace(CONFIG, image_size=(2, 2), context=Quadrant())
    facts = sample.facts(small, 3)
    weights = 12 * 32 * 32 * 2 + 32 * 16
    assert facts["steps"] == 3
    assert facts["operations"] == 3 * (2 * weights * 4 + 4 * 9 * 32 * 2)
    assert facts["exponentials"] == 3 * (9 * 2 * 2 + 4 * 16)
    assert facts["bytes"] == 4 * (3 * weights + 3 * 8 * 2 * 32 * 2)


def test_quick_takes_one_of_each_and_full_every_size():
    quick = [contest.name for contest in sample.contests(CPU, quick=True)]
    assert quick == ["sample tiny 32x32 B16 raster", "sample small 32x32 B1 quadrant"]
    full = [contest.name for contest in sample.contests(CPU, quick=False)]
    assert full == [
        "sample tiny 32x32 B16 raster",
        "sample small 32x32 B16 raster",
        *(f"sample {model} {side}x{side} B1 quadrant" for side in (32, 64) for model in ("tiny", "small")),
    ]
