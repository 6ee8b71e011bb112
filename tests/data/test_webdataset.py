"""Tar shards as a source: what is found in them, and what is said of those that are not as they should be."""

import gzip
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_fast.data import (
    BrokenShard,
    Loader,
    NoImages,
    NoLabels,
    TarSource,
    TooFewImages,
    few_per_class,
    open_source,
    split,
)
from imagen_fast.data.webdataset import OPEN_SHARDS, _expand_braces, _open, shards_title


@pytest.fixture
def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_what_is_found(folder, shards):
    source = open_source(str(shards / "set-{000..003}.tar"))
    other = open_source(folder)
    assert len(source) == 20
    assert source.labels.tolist() == other.labels.tolist() == [0] * 10 + [1] * 10
    assert source.classes == ("0", "1")
    assert source.shards.tolist() == [n // 5 for n in range(20)]
    assert source.path(6) == "set-001.tar/left/03.jpg"
    held = sorted(other.encoded(i) for i in range(20))
    assert sorted(source.encoded(i) for i in range(20)) == held
    assert source.unusable == ()
    assert (source.channels, source.levels, source.native_size) == (3, 256, None)


def test_every_way_to_name_shards(shards, monkeypatch):
    monkeypatch.chdir(shards)
    every = open_source("set-{000..003}.tar").members
    for names in (
        "*.tar",
        "set-00[0-3].tar",
        "set-{000,001,002,003}.tar",
        ["set-000.tar", "set-00{1..2}.tar", Path("set-003.tar")],
        [str(shards / f"set-{n:03}.tar") for n in range(4)],
        str(shards / "*.tar"),
    ):
        assert open_source(names).members == every, names
    assert sorted(open_source("set-{00{0..1},002,003}.tar").members) == sorted(every)
    assert open_source("set-002.tar").members == every[10:15]
    assert open_source(["set-003.tar", "set-000.tar"]).members == every[15:] + every[:5]


def test_braces():
    assert list(_expand_braces("a{08..11}")) == ["a08", "a09", "a10", "a11"]
    assert list(_expand_braces("{9..11}{x,y}")) == ["9x", "9y", "10x", "10y", "11x", "11y"]
    assert list(_expand_braces("{2..0}")) == ["2", "1", "0"]
    assert list(_expand_braces("{a}-{}-{1..}")) == ["{a}-{}-{1..}"]


def test_what_a_data_set_is_called():
    assert shards_title("/data/train-{000000..001281}.tar") == "train"
    assert shards_title("/data/imagenet/*.tar") == "imagenet"
    assert shards_title("birds.tar") == "birds"


def test_names_as_webdataset_takes_them(tmp_path, shard, jpeg):
    """The key ends at the first dot of the last name; case, hidden files, folders and notes."""
    members = [
        ("./d.e/a.JPG", jpeg),
        ("./d.e/a.CLS", b" 3\n"),
        ("./d.e/b.seg.png", b"no image of this sample"),
        ("./d.e/b.jpeg", jpeg),
        ("./d.e/b.cls", b"1"),
        ("other/b.png", jpeg),
        ("other/b.jpg", jpeg + b"first"),
        ("other/b.cls", b"0"),
        (".hidden.jpg", jpeg),
        ("README", b""),
        ("__index__/c.jpg", jpeg),
    ]
    source = open_source(shard(tmp_path / "a.tar", members))
    assert source.members == ("./d.e/a.JPG", "./d.e/b.jpeg", "other/b.jpg")
    assert source.labels.tolist() == [3, 1, 0]
    assert source.classes == ("0", "1", "2", "3")
    assert source.encoded(2) == jpeg + b"first"


def test_an_independent_writer(tmp_path, jpeg):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=3, verbose=0) as writer:
        for n in range(7):
            writer.write({"__key__": f"{n:03}", "jpg": jpeg + b"%d" % n, "cls": n % 4, "json": {"label": 9}})
    source = open_source(str(tmp_path / "s-{000000..000002}.tar"))
    there = wds.WebDataset(sorted(map(str, tmp_path.glob("*.tar"))), shardshuffle=False).to_tuple(
        "jpg", "cls"
    )
    found = [(source.encoded(i), str(source.labels[i]).encode()) for i in range(len(source))]
    assert found == list(there)


def test_labels_only_where_all_images_have_one(tmp_path, shard, jpeg):
    some = shard(tmp_path / "a.tar", [("a.jpg", jpeg), ("a.cls", b"0"), ("b.jpg", jpeg)])
    assert open_source(some).labels is None
    with pytest.raises(NoLabels, match=r"has no labels; .* a cls file for every image in the shards"):
        few_per_class(open_source(some), 1)


@pytest.mark.parametrize("label", [b"", b"n01440764", b"-1", b"1.0", b"\x80\x04K\x01.", b"20261126"])
def test_what_is_no_number_of_a_class_is_no_label(tmp_path, shard, jpeg, label):
    """And no reason to refuse images that may be learnt from without labels."""
    members = [("a.jpg", jpeg), ("a.cls", b"1"), ("b.jpg", jpeg), ("b.cls", label)]
    source = open_source(shard(tmp_path / "a.tar", members))
    assert len(source) == 2
    assert source.labels is None


def test_what_cannot_be_read_is_one_sentence(tmp_path, shard, jpeg, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = shard(tmp_path / "good.tar", [("a.jpg", jpeg)])
    (tmp_path / "zip.tar.gz").write_bytes(gzip.compress(good.read_bytes()))
    (tmp_path / "zip.tar").write_bytes(gzip.compress(good.read_bytes()))
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_bytes(b"no such thing" * 100)
    shard(tmp_path / "twice.tar", [("a.jpg", jpeg), ("b.jpg", jpeg), ("a.jpg", jpeg)])
    shard(tmp_path / "none.tar", [("a.txt", b"words"), ("a.npy", b"")])
    shard(tmp_path / "nothing.tar", [])
    for name, error, sentence in [
        ("gone.tar", BrokenShard, "shard 'gone.tar' cannot be read: No such file"),
        ("no-{00..99}.tar", BrokenShard, "shard 'no-00.tar' cannot be read: No such file"),
        ("no*.x.tar", BrokenShard, r"no file is found for the shards 'no\*.x.tar'"),
        ("zip.tar.gz", BrokenShard, "is compressed with gzip, .* decompress it first"),
        ("zip.tar", BrokenShard, "is compressed with gzip, .* decompress it first"),
        ("empty.tar", NoImages, "hold no JPEG.* image; empty.tar: the shard is an empty file"),
        ("text.tar", BrokenShard, "is no tar file: there is no tar header at byte 0"),
        ("twice.tar", BrokenShard, "shard 'twice.tar' holds 'a.jpg' twice"),
        ("none.tar", NoImages, "hold no JPEG.* image; none.tar/a: the sample has no image, only npy, txt"),
        ("nothing.tar", NoImages, "the 1 shards 'nothing.tar' hold no JPEG"),
        ("https://host/a.tar", BrokenShard, "must be files that lie here, not 'https://host/a.tar'"),
        ([], NoImages, "the list of shards is empty"),
    ]:
        with pytest.raises(error, match=sentence):
            open_source(name)


@pytest.mark.parametrize("where", ["in the image", "before the label"])
def test_a_shard_that_breaks_off_is_used_up_to_its_last_whole_sample(shards, where):
    first = shards / "set-000.tar"
    members = open_source(first).members
    offset, size = open_source(first).places[3].tolist()
    os.truncate(first, offset + 100 if where == "in the image" else -(-(offset + size) // 512) * 512)
    source = open_source(str(shards / "*.tar"))
    assert source.members[:4] == (*members[:3], open_source(shards / "set-001.tar").members[0])
    assert source.labels is not None
    with Loader(source, 4, 8, threads=1) as loader:
        ((path, reason),) = loader.failed
        loader.at(0)
    assert path == "set-000.tar"
    assert reason.startswith("3 images of the shard are used, what follows is lost: it ends at byte")


def test_a_shard_without_one_whole_sample_ends_nobody_elses_use(shards, tmp_path):
    names = sorted(str(path) for path in shards.glob("*.tar"))
    os.truncate(names[0], 700)
    (tmp_path / "empty.tar").write_bytes(b"")
    source = open_source([*names, str(tmp_path / "empty.tar")])
    assert source.members[0] == open_source(names[1]).members[0]
    reasons = [reason for _, reason in source.unusable]
    assert reasons[0].startswith("no image of the shard is used, what follows is lost: it ends at byte 700")
    assert reasons[1:] == ["the shard is an empty file"]


def test_a_sample_without_an_image_is_listed_and_the_rest_used(tmp_path, shard, jpeg):
    members = [("a.jpg", jpeg), ("b.txt", b"words"), ("c.jpg", jpeg)]
    source = open_source(shard(tmp_path / "a.tar", members))
    assert source.members == ("a.jpg", "c.jpg")
    with Loader(source, 2, 8, threads=1) as loader:
        assert loader.failed == [("a.tar/b", "the sample has no image, only txt")]


def test_a_shard_that_changes_under_a_run_fails_its_images(tmp_path, shard, jpeg):
    path = shard(tmp_path / "a.tar", [("a.jpg", jpeg), ("b.jpg", jpeg)])
    source = open_source(path)
    shard(path, [("other.jpg", jpeg * 100), ("a.jpg", jpeg)])
    with pytest.raises(OSError, match="the shard has changed since it was indexed"):
        source.encoded(0)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        source.encoded(0)


def test_parts_of_it(shards):
    source = open_source(str(shards / "*.tar"))
    part = source.subset([17, 3, 9])
    assert part.members == tuple(source.members[i] for i in (17, 3, 9))
    assert [part.encoded(i) for i in range(3)] == [source.encoded(i) for i in (17, 3, 9)]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.shards.tolist() == [3, 0, 1]
    train, held = split(source, 0.3)
    assert sorted(train.members + held.members) == sorted(source.members)
    with pytest.raises(TooFewImages, match="holds no image"):
        source.subset([])


def test_many_threads_read_more_shards_than_stay_open(tmp_path, shard, jpeg):
    count = OPEN_SHARDS + 40
    for n in range(count):
        shard(tmp_path / f"{n:03}.tar", [("a.jpg", jpeg + b"%d" % n)])
    source = open_source(str(tmp_path / "*.tar"))
    order = np.random.default_rng(0).integers(0, count, 4000)
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: source.encoded(n) == jpeg + b"%d" % n, order))
    assert _open.cache_info().currsize == OPEN_SHARDS
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_SHARDS


def test_it_goes_to_other_processes(shards):
    source = open_source(str(shards / "*.tar"))
    wanted = [source.encoded(i) for i in range(20)]
    copy = pickle.loads(pickle.dumps(source))
    assert isinstance(copy, TarSource)
    assert [copy.encoded(i) for i in range(20)] == wanted
    reader, writer = os.pipe()
    if os.fork() == 0:
        same = [source.encoded(i) for i in range(20)] == wanted
        os.write(writer, b"same" if same else b"else")
        os._exit(0)
    assert [source.encoded(i) for i in range(20)] == wanted
    assert os.read(reader, 4) == b"same"
    os.wait()
