from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_fast.benchmarks import decode
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.decode_corpus import SMALL, jpegs, main
from imagen_fast.benchmarks.peers import image_pipelines
from imagen_fast.benchmarks.pixel_levels import OTHER, SAME, levels_apart

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def threads():
    """The suite takes one thread for everyone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_corpus_is_the_same_each_time_and_of_one_size():
    first = jpegs(3, SMALL)
    jpegs.cache_clear()
    assert jpegs(3, SMALL) == first
    for data in first:
        image = Image.open(io.BytesIO(data))
        assert image.size == SMALL
        assert image.format == "JPEG"
        assert 20_000 < len(data) < 200_000


def test_the_corpus_can_be_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("imagen_fast.benchmarks.decode_corpus.COUNT", 1)
    main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2048x1536-00.jpg", "500x375-00.jpg"]


def test_every_pipeline_that_is_here_does_the_same_work():
    pytest.importorskip("torchvision")
    contest, *_ = decode.contests(torch.device("cpu"), quick=True)
    for contender in contest.contenders():
        call, verdict = contender.prepare()
        assert verdict.correct, (contender.implementation, verdict.evidence)
        assert call().shape == (16, 3, decode.SIDE, decode.SIDE)
    assert next(iter(contest.contenders())).implementation == OURS


def test_other_pixels_are_not_the_same():
    given = decode.work(SMALL, 2)
    made = decode._ours(given)().clone()
    assert levels_apart(made, made, SAME).correct
    assert not levels_apart(made.flip(-1), made, SAME).correct
    assert not levels_apart(made * torch.nan, made, OTHER).correct
    one = made.clone()
    one[0, 0, 0, 0] += 3 / (255 * image_pipelines.STD[0])
    assert not levels_apart(one, made, SAME).correct


def test_without_peers_ours_is_measured_and_they_are_named(monkeypatch):
    for name in ("TORCHVISION", "TORCHCODEC", "SIMPLEJPEG", "OPENCV", "DALI"):
        monkeypatch.setattr(decode, name, replace(getattr(decode, name), module="no_such_module_here"))
    contest, *_ = decode.contests(torch.device("cpu"), quick=True)
    named = [absence.peer for absence in contest.absent]
    assert named == ["torchvision", "TorchCodec", "simplejpeg", "OpenCV", "DALI"]
    contenders = list(contest.contenders())
    assert [c.implementation for c in contenders] == [OURS, f"{OURS}, new memory"]
    assert contenders[0].prepare()[1].correct


def test_boxes_lie_within_the_images():
    boxes = decode.work(SMALL, 16).boxes
    assert bool((boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= np.array(SMALL)).all())


def test_on_a_gpu_there_are_contenders_of_its_own(monkeypatch):
    peers = ("TORCHVISION", "TORCHCODEC", "DALI")
    for name in peers:
        monkeypatch.setattr(decode, name, replace(getattr(decode, name), module="torch"))
    small, large = decode.contests(torch.device("cuda"), quick=False)
    assert (small.name, large.name) == (
        "decode 500x375 B256 crop 224 fp32, GPU",
        "decode 2048x1536 B64 crop 224 fp32, GPU",
    )
    names = [contender.implementation for contender in small.contenders()]
    theirs = ["torchvision.io on CUDA, v2", "TorchCodec on CUDA, v2", "DALI, mixed"]
    assert names == [OURS, f"{OURS}, two decoders", *theirs]
    for name in peers:
        monkeypatch.setattr(decode, name, replace(getattr(decode, name), module="no_such_module_here"))
    (quick,) = decode.contests(torch.device("cuda"), quick=True)
    assert [absence.peer for absence in quick.absent] == ["torchvision", "TorchCodec", "DALI"]
    assert len(list(quick.contenders())) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_pipeline_that_is_on_the_gpu_does_the_same_work():
    (contest,) = decode.contests(torch.device("cuda"), quick=True)
    for contender in contest.contenders():
        call, verdict = contender.prepare()
        assert verdict.correct, (contender.implementation, verdict.evidence)
        assert call().device.type == "cuda"
