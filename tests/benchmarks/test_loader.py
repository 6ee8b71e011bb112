"""The loaders of the decode suite: everyone's pass is whole, and what a training step takes is beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagen_fast.benchmarks import decode, loader
from imagen_fast.benchmarks.compare import Name
from imagen_fast.benchmarks.contender import OURS

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few images, and the torch threads as they were."""
    monkeypatch.setattr(loader, "BATCHES", 1)
    monkeypatch.setattr(loader, "processors", lambda: 2)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contest(kind):
    return dict(zip(loader.KINDS, loader.contests(quick=True), strict=True))[kind]


@pytest.mark.parametrize("kind", loader.KINDS)
def test_every_loader_that_is_here_does_the_same_work(kind):
    pytest.importorskip("torchvision")
    found = [each for each in contest(kind).contenders() if "steps" not in each.implementation]
    assert found[0].implementation == OURS
    assert len(found) >= 3 - (kind == "tar")
    for contender in found:
        call, verdict = contender.prepare()
        assert verdict.correct, (contender.implementation, verdict.evidence)
        assert call() == contender.facts["images"] == 32


def test_without_peers_they_are_named_with_what_brings_them(monkeypatch):
    for name in ("TORCHVISION", "FFCV", "WEBDATASET"):
        monkeypatch.setattr(loader, name, replace(getattr(loader, name), module="no_such_module_here"))
    absent = {kind: [absence.peer for absence in contest(kind).absent] for kind in loader.KINDS}
    assert absent == {"folder": ["torchvision", "FFCV"], "tar": ["torchvision", "webdataset"]}
    (_, ffcv) = contest("folder").absent
    assert "libopencv-dev" in ffcv.install
    assert ffcv.install.endswith("pip install ffcv")
    assert "FFCV" not in [c.implementation for c in contest("folder").contenders()]


def test_the_record_says_that_ffcv_reads_other_jpegs(monkeypatch):
    for name in ("TORCHVISION", "FFCV"):  # as though both were here
        monkeypatch.setattr(loader, name, replace(getattr(loader, name), module="json"))
    told = {c.implementation: c.facts.get("files") for c in contest("folder").contenders()}
    assert {name: files for name, files in told.items() if files} == {"FFCV": "JPEGs coded anew, quality 95"}


def test_the_suite_of_decoding_has_them():
    names = [contest.name for contest in decode.contests(torch.device("cpu"), quick=True)]
    assert [name.split()[:2] for name in names[1:]] == [["loader", "folder"], ["loader", "tar"]]


def test_a_step_takes_as_many_images(monkeypatch):
    *_, step = contest("folder").contenders()
    assert Name("", 0, step.case, step.implementation).ours  # its code is no peer's
    assert step.facts["step"].startswith("mae tiny cross")
    calls = []
    made = replace(step, prepare=lambda: (lambda: calls.append(1), None), facts={"images": 16})
    call, _ = loader._steps(made, 64, 1)
    call()
    assert len(calls) == 4


def test_other_pixels_and_missing_images_are_found():
    right = loader.verdict(lambda work: loader.ours("folder", work))
    assert right.correct
    assert not loader.verdict(lambda work: loader.ours("folder", replace(work, flip=1.0))).correct

    def twice(work):
        batches = [*loader.ours("folder", work)()]
        return lambda: [*batches, batches[0]]

    def lost(work):
        return lambda: list(loader.ours("folder", work)())[1:]

    for build in (twice, lost):
        found = loader.verdict(build)
        assert not found.correct
        assert "each image once" in found.evidence


def test_shards_hold_the_files():
    work = loader.work(9, 3, 1)
    wds = pytest.importorskip("webdataset")
    there = list(wds.WebDataset(list(work.shards), shardshuffle=False).to_tuple("jpg", "cls"))
    assert [int(number) for _, number in there] == list(range(9))
    assert [data for data, _ in there] == [Path(file).read_bytes() for file in work.files]
