import importlib.util

import numpy as np
import pytest

from imagen_fast.data import (
    ArraySource,
    MissingFolder,
    NoImages,
    NoLabels,
    TooFewImages,
    UnknownData,
    few_per_class,
    open_source,
    split,
)
from imagen_fast.errors import DataError, InvalidInput, MissingPackage


def test_a_folder_is_read_in_sorted_order_with_its_labels(folder):
    (folder / "left" / ".hidden.jpg").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / "left" / "thumbs.db").write_text("no image")
    source = open_source(folder)
    assert len(source) == 20
    assert source.others == 2
    assert list(source.files) == sorted(source.files)
    assert source.files[0] == "left/deep0/00.jpg"
    assert source.classes == ("left", "right")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0] * 10 + [1] * 10
    assert (source.channels, source.levels, source.native_size) == (3, 256, None)
    assert source.encoded(0) == (folder / source.files[0]).read_bytes()


def test_one_subfolder_or_loose_images_give_no_labels(folder):
    assert open_source(folder / "left").labels is not None  # deep0, deep1
    assert open_source(folder / "left" / "deep0").labels is None
    (folder / "loose.JPEG").write_bytes((folder / "left/deep0/00.jpg").read_bytes())
    assert open_source(folder).labels is None


def test_a_subfolder_without_images_is_no_class(folder):
    (folder / "middle").mkdir()
    (folder / "middle" / "readme.md").write_text("")
    assert open_source(folder).classes == ("left", "right")


def test_a_link_to_its_own_parent_ends(folder):
    (folder / "left" / "again").symlink_to(folder)
    assert len(open_source(folder)) == 20


def test_what_is_wrong_with_a_folder_is_one_sentence(tmp_path):
    with pytest.raises(MissingFolder, match=r"'.*/nowhere' does not exist; give a folder of JPEG"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(NoImages, match="holds no JPEG, PNG or WebP image: it is empty"):
        open_source(tmp_path)
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(NoImages, match="holds no JPEG, PNG or WebP image: its 2 files are none"):
        open_source(tmp_path)
    with pytest.raises(MissingFolder, match=r"a.txt' is a file, not a folder"):
        open_source(tmp_path / "a.txt")
    for name in ("mnist", ""):
        with pytest.raises(UnknownData, match=f"'{name}' is neither .* embedded sets are digits, photos"):
            open_source(name)
    assert all(issubclass(kind, (DataError, ValueError)) for kind in (MissingFolder, NoImages, UnknownData))


def test_a_folder_of_an_embedded_sets_name_is_told_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.warns(UserWarning, match="digits is the embedded set; the folder of that name is ./digits"):
        assert open_source("digits").name == "digits"


def test_digits():
    source = open_source("digits")
    assert source.images.shape == (1797, 1, 8, 8)
    assert source.images.dtype == np.uint8
    assert len(np.unique(source.images)) == source.levels == 17
    level = np.rint(source.images * (16 / 255))
    assert (np.rint(level * (255 / 16)) == source.images).all()
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    normalised = (source.images / 255 - source.mean) / source.std
    assert abs(normalised.mean()) < 1e-9
    assert normalised.std() == pytest.approx(1)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_photos(size):
    source = open_source("photos", tile=size)
    assert source.images.shape[1:] == (3, size, size)
    assert source.images.flags.c_contiguous
    assert source.native_size == size
    assert set(source.labels) == set(range(len(source.classes)))
    assert len(source) > {32: 2500, 64: 700, 224: 25}[size]
    assert len(source) == len({tile.tobytes() for tile in source.images})


def test_photos_of_an_impossible_size():
    with pytest.raises(TooFewImages, match="no tile of 5000 pixels fits"):
        open_source("photos", tile=5000)
    with pytest.raises(InvalidInput, match="at least 1 pixel, not 0"):
        open_source("photos", tile=0)


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_a_missing_package_names_the_extra(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingPackage, match=r"pip install imagen-fast\[train\]"):
        open_source(name)


def test_split_is_stratified_disjoint_and_repeatable():
    source = open_source("digits")
    train, held = split(source, 0.2, seed=3)
    assert len(train) + len(held) == len(source)
    assert np.abs(np.bincount(held.labels) - 0.2 * np.bincount(source.labels)).max() <= 0.5
    assert (split(source, 0.2, seed=3)[1].images == held.images).all()
    assert (split(source, 0.2, seed=4)[1].images[:300] != held.images[:300]).any()
    assert held.classes == source.classes


def test_split_of_a_folder(folder):
    train, held = split(open_source(folder), 0.3, seed=0)
    assert sorted(train.files + held.files) == list(open_source(folder).files)
    assert held.labels.tolist() == [0] * 3 + [1] * 3
    unlabelled = open_source(folder / "left" / "deep0")
    train, held = split(unlabelled, 0.01)
    assert (len(train), len(held)) == (4, 1)


def test_split_refuses(folder):
    source = open_source("digits")
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match="strictly between 0 and 1"):
            split(source, share)
    with pytest.raises(TooFewImages, match="too few images to hold some out"):
        split(source.subset([0]), 0.5)
    with pytest.raises(TooFewImages, match="holds no image"):
        source.subset([])


def test_few_per_class(folder):
    source = open_source("digits")
    few = few_per_class(source, 10, seed=1)
    assert np.bincount(few.labels).tolist() == [10] * 10
    assert (few.images == few_per_class(source, 10, seed=1).images).all()
    assert (few.images != few_per_class(source, 10, seed=2).images).any()
    with pytest.raises(TooFewImages, match=r"class 'left' of .* has 10 images, fewer than 11"):
        few_per_class(open_source(folder), 11)
    with pytest.raises(NoLabels, match="has no labels; they come from"):
        few_per_class(open_source(folder / "left" / "deep0"), 1)
    with pytest.raises(InvalidInput, match="at least 1, not 0"):
        few_per_class(source, 0)


def test_images_of_another_shape_are_refused():
    with pytest.raises(TypeError, match=r"uint8 \[N, 1 or 3, H, W\], not float64 \[2, 3\]"):
        ArraySource(name="x", images=np.zeros((2, 3)))
