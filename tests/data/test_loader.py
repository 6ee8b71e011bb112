import itertools
import os
import pickle
import threading

import numpy as np
import pytest
import torch

from imagen_fast.data import (
    AllCorrupt,
    ArraySource,
    Augmentation,
    FolderSource,
    Loader,
    RandomResizedCrop,
    open_source,
)
from imagen_fast.errors import InvalidInput


def same(a, b):
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.indices, b.indices)
        and (a.labels is b.labels is None or torch.equal(a.labels, b.labels))
    )


def take(iterator, count):
    return list(itertools.islice(iterator, count))


@pytest.fixture(params=["folder", "shards", "dataset", "digits", "digits resized", "photos"])
def source_and_size(request, folder):
    if request.param == "folder":
        return open_source(folder), 32
    if request.param == "shards":
        return open_source(str(request.getfixturevalue("shards") / "*.tar")), 32
    if request.param == "dataset":
        datasets = pytest.importorskip("datasets")
        labels = datasets.ClassLabel(names=["left", "right"])
        features = datasets.Features({"image": datasets.Image(), "label": labels})
        files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
        rows = {"image": files, "label": [int("right" in name) for name in files]}
        return open_source(datasets.Dataset.from_dict(rows, features=features)), 32
    if request.param == "photos":
        return open_source("photos", tile=48).subset(range(0, 600, 10)), 48
    return open_source("digits").subset(range(100)), 8 if request.param == "digits" else 12


def test_any_step_at_any_thread_count_is_bitwise_the_same(source_and_size):
    source, size = source_and_size
    augment = Augmentation(crop=RandomResizedCrop(), flip=True, shift=2) if size != 8 else None
    with Loader(source, 24, size, augment, seed=7, threads=1) as loader:
        stream = take(loader.batches(), 9)
    for threads in (1, 4):
        with Loader(source, 24, size, augment, seed=7, threads=threads) as loader:
            for start in (0, 3, 8):
                resumed = take(loader.batches(start), 9 - start)
                assert all(same(a, b) for a, b in zip(resumed, stream[start:], strict=True))
            assert same(loader.at(5), stream[5])
    with Loader(source, 24, size, augment, seed=8, threads=2) as loader:
        assert not torch.equal(loader.at(0).images, stream[0].images)


def test_an_image_is_cropped_anew_each_time_it_is_seen():
    """In another place of a batch, another thread's part of it, another epoch."""
    one = open_source("photos", tile=48).subset([7])
    with Loader(one, 40, 24, Augmentation(crop=RandomResizedCrop()), threads=2) as loader:
        seen = torch.cat([loader.at(step).images for step in range(2)])
    assert len(seen.flatten(1).unique(dim=0)) > 75


def test_what_a_batch_is(source_and_size):
    source, size = source_and_size
    with Loader(source, 16, size, threads=2) as loader:
        batch = loader.at(0)
        assert batch.images.shape == (16, source.channels, size, size)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous()
        assert batch.indices.dtype == batch.labels.dtype == torch.int64
        assert (batch.labels.numpy() == source.labels[batch.indices]).all()
        assert loader.waited > 0
        assert same(batch.to("cpu"), batch)


def test_every_image_is_seen_once_an_epoch_and_nothing_is_dropped():
    source = open_source("digits").subset(range(103))
    with Loader(source, 10, 8, seed=1) as loader:
        assert loader.steps_per_epoch == 11
        seen = torch.cat([loader.at(step).indices for step in range(103)])
    epochs = seen.reshape(10, 103)
    assert (epochs.sort(dim=1).values == torch.arange(103)).all()
    assert not torch.equal(epochs[0], epochs[1])


def test_a_source_smaller_than_a_batch_wraps_around():
    source = open_source("digits").subset(range(3))
    with Loader(source, 8, 8) as loader:
        assert loader.steps_per_epoch == 1
        indices = torch.cat([batch.indices for batch in take(loader.batches(), 3)])
    assert (indices.reshape(8, 3).sort(dim=1).values == torch.arange(3)).all()


def test_without_shuffling_the_order_is_the_sources():
    with Loader(open_source("digits").subset(range(5)), 4, 8, shuffle=False) as loader:
        assert loader.at(1).indices.tolist() == [4, 0, 1, 2]


def test_processes_share_a_step(folder):
    source = open_source(folder)
    with Loader(source, 8, 16, seed=2) as alone:
        whole = alone.at(3)
    parts = []
    for rank in range(2):
        with Loader(source, 4, 16, seed=2, rank=rank, world=2) as loader:
            assert loader.steps_per_epoch == 3
            parts.append(loader.at(3))
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)


def test_a_pass_for_evaluation(source_and_size):
    source, size = source_and_size
    with Loader(source, 16, size, threads=2) as loader:
        batches = list(loader.once())
        again = list(loader.once())
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(len(source)))
    assert len(batches[-1].images) == len(source) % 16
    assert all(same(a, b) for a, b in zip(batches, again, strict=True))
    if isinstance(source, ArraySource) and source.native_size == size:
        assert (torch.cat([batch.images for batch in batches]).numpy() == source.images).all()


@pytest.mark.parametrize(("name", "channels"), [("digits", 3), ("photos", 1)])
def test_other_channels(name, channels):
    source = open_source(name).subset(range(20))
    size = source.native_size
    with Loader(source, 20, size, channels=channels) as loader:
        assert loader.at(0).images.shape == (20, channels, size, size)
        (batch,) = loader.once()
        assert batch.images.shape == (20, channels, size, size)
        assert len(loader.mean) == len(loader.std) == channels


def test_flips_are_fair():
    images = np.zeros((400, 1, 4, 4), dtype=np.uint8)
    images[..., 0] = 9
    source = ArraySource(name="edge", channels=1, mean=(0.5,), std=(0.5,), native_size=4, images=images)
    with Loader(source, 400, 4, Augmentation(flip=True)) as loader:
        mirrored = (loader.at(0).images[:, 0, 0, 3] == 9).float().mean()
    assert 0.4 < mirrored < 0.6


@pytest.fixture
def damaged(folder):
    """Six unusable files among the twenty good ones."""
    good = (folder / "left" / "deep0" / "00.jpg").read_bytes()
    (folder / "left" / "deep0" / "00a-empty.jpg").write_bytes(b"")
    (folder / "left" / "deep0" / "00b-cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "left" / "deep0" / "00c-text.png").write_bytes(b"this is no image")
    (folder / "right" / "noise.webp").write_bytes(np.random.default_rng(0).bytes(999))
    (folder / "right" / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "right" / "zero.png").write_bytes(bytes(5000))
    png = (folder / "left" / "deep1" / "01.PNG").read_bytes()
    (folder / "right" / "a-png.jpg").write_bytes(png)
    return folder


BROKEN = [
    "left/deep0/00a-empty.jpg",
    "left/deep0/00b-cut.jpg",
    "left/deep0/00c-text.png",
    "right/gone.jpg",
    "right/noise.webp",
    "right/zero.png",
]


def test_corrupt_images_are_replaced_counted_and_listed(damaged):
    source = open_source(damaged)
    assert len(source) == 27
    streams = []
    for threads in (1, 4):
        with Loader(source, 9, 24, seed=3, threads=threads) as loader:
            streams.append(take(loader.batches(), 6))
            assert [path for path, _ in loader.failed] == BROKEN
            reasons = dict(loader.failed)
    assert all(same(a, b) for a, b in zip(*streams, strict=True))
    assert reasons["left/deep0/00a-empty.jpg"] == "the file is empty"
    assert "truncated" in reasons["left/deep0/00b-cut.jpg"]
    assert reasons["right/gone.jpg"] == "No such file or directory"
    seen = torch.cat([batch.indices for batch in streams[0]])
    bad = {source.files.index(path) for path in BROKEN}
    assert set(seen.tolist()) == set(range(27)) - bad
    assert (torch.cat([batch.labels for batch in streams[0]]).numpy() == source.labels[seen]).all()


@torch.inference_mode()
def test_in_inference_mode_too(damaged):
    with Loader(open_source(damaged), 9, 24, seed=3, threads=2) as loader:
        inside, passed = loader.at(1), list(loader.once())
    with torch.inference_mode(False), Loader(open_source(damaged), 9, 24, seed=3, threads=2) as loader:
        assert same(inside, loader.at(1))
        assert all(same(a, b) for a, b in zip(passed, loader.once(), strict=True))


def test_a_replacement_is_the_next_good_image_of_the_epochs_order(damaged):
    source = open_source(damaged)
    with Loader(source, 27, 24, shuffle=False, augment=Augmentation()) as loader:
        indices = loader.at(0).indices.tolist()
        good = [i for i in range(27) if source.files[i] not in BROKEN]
        assert indices == [next((g for g in good if g >= i), good[0]) for i in range(27)]


def test_an_evaluation_leaves_corrupt_images_out(damaged):
    source = open_source(damaged)
    with Loader(source, 4, 24) as loader:
        indices = torch.cat([batch.indices for batch in loader.once()])
        assert [source.files[i] for i in indices] == [name for name in source.files if name not in BROKEN]
        assert len(loader.failed) == len(BROKEN)


@pytest.mark.parametrize("how", ["at", "once"])
def test_nothing_but_corrupt_images_is_one_sentence(tmp_path, how):
    for number in range(40):
        (tmp_path / f"{number:02}.jpg").write_bytes(b"junk")
    with (
        Loader(open_source(tmp_path), 32, 8, threads=2) as loader,
        pytest.raises(AllCorrupt, match=r"none of the 40 images of .* can be decoded; 00.jpg: the bytes are"),
    ):
        loader.at(0) if how == "at" else list(loader.once())


def test_an_exception_in_a_thread_reaches_the_caller(folder, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(FolderSource, "encoded", broken)
    with Loader(open_source(folder), 4, 8, threads=2) as loader:
        with pytest.raises(ZeroDivisionError, match="a defect of ours"):
            next(loader.batches())
        with pytest.raises(ZeroDivisionError, match="a defect of ours"):
            next(loader.once())


def test_closing_leaves_no_threads(folder):
    def ours():
        return {thread for thread in threading.enumerate() if thread.name.startswith("imagen-fast-data")}

    before = ours()
    with Loader(open_source(folder), 32, 64, threads=3) as loader:
        stream = loader.batches()
        next(stream)
        assert len(ours() - before) == 3
        # Left in the middle of the stream, with batches under way.
    assert ours() <= before


def test_a_loader_stays_in_its_process(folder):
    sentence = "a loader belongs to the process that made it"
    with Loader(open_source(folder), 4, 32, threads=2) as loader:
        loader.at(0)
        with pytest.raises(InvalidInput, match=sentence):
            pickle.dumps(loader)
        child = os.fork()
        if not child:
            try:
                loader.at(1)
            except InvalidInput as error:
                os._exit(0 if sentence in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_batch_asked_of_a_closed_loader_is_one_sentence(folder):
    with Loader(open_source(folder), 4, 32, threads=1) as loader:
        batches = iter(loader)
        next(batches)
    with pytest.raises(InvalidInput, match="the loader was closed"):
        list(batches)


def test_numbers_out_of_range_are_refused():
    source = open_source("digits").subset([0])
    for options, sentence in [
        ({"batch_size": 0}, "batch size must be at least 1, not 0"),
        ({"size": -3}, "size must be at least 1, not -3"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"channels": 4}, "channels must be 1 or 3, not 4"),
        ({"batch_size": 2.5}, "batch size must be a whole number, not 2.5"),
        ({"size": (8, 8)}, r"size must be a whole number, not \(8, 8\)"),
        ({"source": "digits"}, "source must be a Source, which open_source makes of a path, not str"),
    ]:
        with pytest.raises(InvalidInput, match=sentence):
            Loader(**{"source": source, "batch_size": 1, "size": 8} | options)
