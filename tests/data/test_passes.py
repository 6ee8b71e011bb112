"""The loader as other loops take it: passes, positions, types, processes, the time that was waited."""

import itertools
import time

import pytest
import torch

from imagen_fast.data import Augmentation, Loader, RandomResizedCrop, open_source
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops.patches import patchify


def indices(batches):
    return [batch.indices.tolist() for batch in batches]


def digits(count):
    return open_source("digits").subset(range(count))


@pytest.fixture
def loader():
    with Loader(digits(50), 8, 8, seed=3, threads=2) as made:
        yield made


def test_a_pass_is_an_epoch_of_the_stream(loader):
    stream = indices(itertools.islice(loader.batches(), 21))
    assert len(loader) == loader.steps_per_epoch == 7
    assert [indices(loader) for _ in range(3)] == [stream[:7], stream[7:14], stream[14:]]


def test_a_pass_that_was_left_is_not_gone_on_with(loader):
    stream = indices(itertools.islice(loader.batches(), 14))
    assert next(iter(loader)).indices.tolist() == stream[0]
    assert indices(loader) == stream[7:14]
    loader.set_epoch(0)
    assert indices(loader) == stream[:7]
    loader.set_epoch(1)
    assert indices(loader) == stream[7:14]


def test_a_state_goes_on_in_another_loader(loader):
    stream = indices(itertools.islice(loader.batches(), 28))
    for taken in (0, 1, 5, 7, 9, 14):
        with Loader(digits(50), 8, 8, seed=3, threads=2) as first:
            endless = itertools.chain.from_iterable(itertools.repeat(first))
            assert indices(itertools.islice(endless, taken)) == stream[:taken]
            state = first.state_dict()
        with Loader(digits(50), 8, 8, seed=3, threads=1) as second:
            second.load_state_dict(state)
            assert second.state_dict() == state
            second.set_epoch(taken // 7)  # as a loop does that counts epochs: no reason to begin it anew
            end = 7 * (taken // 7 + 1)
            assert indices(second) == stream[taken:end]
            assert indices(second) == stream[end : end + 7]


@pytest.mark.parametrize("kind", ["folder", "shards", "dataset"])
def test_a_state_in_the_middle_of_a_pass_is_exact_to_the_bit(kind, folder, request):
    if kind == "dataset":
        datasets = pytest.importorskip("datasets")
        rows = {"image": sorted(str(path) for path in folder.rglob("*") if path.is_file())}
        data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    else:
        data = folder if kind == "folder" else str(request.getfixturevalue("shards") / "*.tar")
    with Loader(open_source(data), 6, 16, seed=1, threads=2, dtype=torch.float32) as loader:
        whole = list(loader)
    with Loader(open_source(data), 6, 16, seed=1, threads=1, dtype=torch.float32) as loader:
        begun = iter(loader)
        seen = [next(begun) for _ in range(2)]
        state = loader.state_dict()
    with Loader(open_source(data), 6, 16, seed=1, threads=3, dtype=torch.float32) as loader:
        loader.load_state_dict(state)
        seen += loader
    assert len(seen) == len(whole) == 4
    assert all(torch.equal(a.images, b.images) for a, b in zip(seen, whole, strict=True))


def test_a_state_of_another_stream_is_refused(loader):
    for changes, sentence in [
        ({"seed": 4}, "seed was 4, now 3"),
        ({"images": 51}, "images was 51, now 50"),
        ({"images_a_step": 16}, "images a step was 16, now 8"),
    ]:
        with pytest.raises(InvalidInput, match=sentence):
            loader.load_state_dict(loader.state_dict() | changes)
    with pytest.raises(InvalidInput, match="images was None"):
        loader.load_state_dict({"step": 3})
    for state in ({}, None, {"step": 2.5}, {"step": -1}):
        with pytest.raises(InvalidInput, match="the state must be what state_dict returns"):
            loader.load_state_dict(state)
    with pytest.raises(InvalidInput, match="epoch must be at least 0, not -1"):
        loader.set_epoch(-1)


def test_the_same_step_may_be_shared_differently():
    """Two processes of four images each go on where one of eight was."""
    with Loader(digits(50), 8, 8, seed=3) as alone:
        next(iter(alone))
        state, wanted = alone.state_dict(), alone.at(1).indices
    parts = []
    for rank in range(2):
        with Loader(digits(50), 4, 8, seed=3, rank=rank, world=2) as loader:
            loader.load_state_dict(state)
            parts.append(next(iter(loader)).indices)
    assert torch.equal(torch.cat(parts), wanted)


def test_dictionaries():
    with Loader(digits(20), 8, 8, as_dicts=True) as loader:
        batch = next(iter(loader))
        assert batch.keys() == {"pixel_values", "labels"}
        assert torch.equal(batch["pixel_values"], loader.at(0).images)
    with Loader(open_source("photos", tile=32).subset([0, 1]), 2, 32, as_dicts=True) as loader:
        object.__setattr__(loader.source, "labels", None)
        assert next(iter(loader)).keys() == {"pixel_values"}


@pytest.mark.parametrize("kind", ["folder", "digits", "digits resized", "photos", "photos in gray"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("patch", [None, 4])
def test_normalised_pixels_and_tokens_are_those_of_the_bytes(kind, dtype, patch, folder):
    if kind == "folder":
        source, size, augment = open_source(folder), 16, Augmentation(RandomResizedCrop(), flip=True)
    elif kind.startswith("photos"):
        source, size, augment = open_source("photos", tile=32).subset(range(9)), 32, Augmentation(flip=True)
    else:
        # Shifted; of 8 pixels a side or resized.
        source, size, augment = digits(9), 8 if kind == "digits" else 12, None
    options = {"threads": 2, "channels": 1 if kind == "photos in gray" else None}
    with (
        Loader(source, 6, size, augment, **options) as plain,
        Loader(source, 6, size, augment, dtype=dtype, patch=patch, **options) as ready,
    ):
        for a, b in [(plain.at(1), ready.at(1)), *zip(plain.once(), ready.once(), strict=True)]:
            mean, std = (torch.tensor(x)[:, None, None] for x in (plain.mean, plain.std))
            wanted = (a.images / 255 - mean) / std
            wanted = wanted if patch is None else patchify(wanted, patch)
            assert b.images.dtype == dtype
            torch.testing.assert_close(
                b.images.float(), wanted, atol=1e-5, rtol=1e-5 if dtype == torch.float32 else 1e-2
            )
            assert torch.equal(a.indices, b.indices)


def test_bytes_as_tokens():
    with Loader(digits(9), 6, 8) as plain, Loader(digits(9), 6, 8, patch=2) as tokens:
        assert torch.equal(tokens.at(0).images, patchify(plain.at(0).images, 2))


def test_what_a_loader_refuses():
    source = digits(1)
    for options, sentence in [
        ({"patch": 3}, "patches of 3 must divide 8x8 pixels"),
        ({"patch": 0}, "patches of 0 must divide"),
        ({"dtype": torch.float64}, "dtype must be one of"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:0 and so on, not tpu"),
        ({"device": "meta"}, "made on the CPU or on a GPU, not on meta"),
        ({"rank": 2, "world": 2}, "rank must be below the number of processes, 2, not 2"),
    ]:
        with pytest.raises(InvalidInput, match=sentence):
            Loader(source, 1, 8, **options)
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="PyTorch finds no CUDA device"):
            Loader(source, 1, 8, device="cuda")


def test_processes_are_those_of_torch_distributed(tmp_path, monkeypatch):
    with Loader(digits(50), 4, 8) as loader:
        assert len(loader) == 13
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        with (
            Loader(digits(50), 4, 8) as ours,
            Loader(digits(50), 4, 8, rank=1, world=2) as said,
            Loader(digits(50), 4, 8, rank=0, world=1) as alone,
        ):
            assert len(ours) == 7
            assert torch.equal(ours.at(2).indices, said.at(2).indices)
            assert not torch.equal(ours.at(2).indices, alone.at(2).indices)
    finally:
        torch.distributed.destroy_process_group()


def test_the_share_of_the_time_that_was_waited(folder, monkeypatch):
    source = open_source(folder)
    with Loader(source, 4, 16, threads=1) as loader:
        assert loader.wait_share == 0
        for _ in loader:
            time.sleep(0.05)  # long enough for what is ahead
        assert loader.wait_share < 0.5
    with Loader(source, 4, 16, threads=1) as loader:
        for _ in loader:
            time.sleep(0.2)
            break
        assert loader.wait_share < 0.9  # a loop that was left counts too
    read = type(source).encoded
    monkeypatch.setattr(type(source), "encoded", lambda self, index: time.sleep(0.01) or read(self, index))
    with Loader(source, 4, 16, threads=1) as loader:
        for _ in loader:
            pass
        assert loader.wait_share > 0.9
        assert loader.waited > 0.1
