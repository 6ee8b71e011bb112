"""Hugging Face datasets as a source."""

import pickle
import sys

import numpy as np
import pytest

from imagen_fast.data import HuggingFaceSource, Loader, OddDataset, TooFewImages, open_source, split
from imagen_fast.errors import MissingPackage

datasets = pytest.importorskip("datasets")


@pytest.fixture
def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def dataset(files):
    columns = {
        "id": list(range(20)),
        "photo": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
        "kind": [n % 3 for n in range(20)],
    }
    kind = datasets.ClassLabel(names=["cat", "dog", "owl"])
    features = datasets.Features({"id": datasets.Value("int32"), "photo": datasets.Image(), "kind": kind})
    return datasets.Dataset.from_dict(columns, features=features)


def test_what_is_found(dataset, files):
    source = open_source(dataset)
    assert isinstance(source, HuggingFaceSource)
    assert len(source) == 20
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [n % 3 for n in range(20)]
    assert source.classes == ("cat", "dog", "owl")
    assert [source.encoded(i) for i in range(20)] == [path.read_bytes() for path in files]
    assert source.path(3) == "dataset[3]"


def test_however_the_dataset_was_formatted(dataset, files):
    odd = dataset.shuffle(seed=1).select(range(10)).with_format("torch")
    odd = odd.with_transform(lambda rows: {"nothing": [0] * len(rows["id"])})
    source = open_source(odd)
    rows = dataset.shuffle(seed=1).select(range(10))["id"]
    assert [source.encoded(i) for i in range(10)] == [files[n].read_bytes() for n in rows]
    assert source.labels.tolist() == [n % 3 for n in rows]


def test_images_that_are_paths(files):
    rows = {"image": [str(path) for path in files[:3]]}
    source = open_source(datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()))
    assert source.labels is source.classes is None
    assert source.encoded(1) == files[1].read_bytes()
    files[2].unlink()
    with Loader(source, 3, 8, threads=1) as loader:
        loader.at(0)
        assert loader.failed == [("dataset[2]", "No such file or directory")]


def test_a_row_without_an_image_is_replaced_and_listed(dataset):
    rows = dataset.to_list()
    rows[4]["photo"] = None
    source = open_source(datasets.Dataset.from_list(rows, features=dataset.features))
    with Loader(source, 20, 8, threads=2) as loader:
        assert 4 not in loader.at(0).indices
        assert loader.failed == [("dataset[4]", "the row has no image")]


def test_columns_are_found_or_named(dataset):
    two = datasets.concatenate_datasets(
        [dataset, dataset.select_columns("photo").rename_column("photo", "mask")], axis=1
    )
    with pytest.raises(OddDataset, match=r"image columns \['photo', 'mask'\]; name one"):
        open_source(two)
    assert len(HuggingFaceSource.of(two, image_column="mask")) == 20
    with pytest.raises(OddDataset, match=r"image column must be one of \['photo'\], not 'id'"):
        HuggingFaceSource.of(dataset, image_column="id")
    with pytest.raises(OddDataset, match=r"none of the columns \['id', 'kind'\] holds images"):
        open_source(dataset.remove_columns("photo"))
    numbers = HuggingFaceSource.of(dataset, label_column="id")
    assert numbers.labels.tolist() == list(range(20))
    assert numbers.classes == tuple(map(str, range(20)))
    with pytest.raises(OddDataset, match=r"label column must be one of .*, not 'label'"):
        HuggingFaceSource.of(dataset, label_column="label")
    with pytest.raises(OddDataset, match="label column 'photo' must hold integers, not PIL"):
        HuggingFaceSource.of(dataset, label_column="photo")
    coarse = dataset.add_column("coarse", dataset["kind"], feature=dataset.features["kind"])
    assert open_source(coarse).labels is None


@pytest.mark.parametrize("unknown", [None, -1])
def test_labels_only_where_all_images_have_one(dataset, unknown):
    rows = dataset.to_list()
    rows[7]["kind"] = unknown
    assert open_source(datasets.Dataset.from_list(rows, features=dataset.features)).labels is None


def test_what_is_no_set_of_images_is_one_sentence(dataset, tmp_path):
    with pytest.raises(OddDataset, match=r"a streamed dataset has no places .* without streaming=True"):
        open_source(dataset.to_iterable_dataset())
    with pytest.raises(OddDataset, match="has the splits 'train', 'test'; give one of them"):
        open_source(datasets.DatasetDict(train=dataset, test=dataset))
    with pytest.raises(OddDataset, match=r"a datasets.Dataset is needed, not int"):
        open_source(3)
    with pytest.raises(TooFewImages, match="holds no image"):
        open_source(dataset.select([]))


def test_saved_to_a_folder(dataset, files, tmp_path):
    dataset.save_to_disk(tmp_path / "one")
    source = open_source(tmp_path / "one")
    assert [source.encoded(i) for i in range(20)] == [path.read_bytes() for path in files]
    assert source.name == str(tmp_path / "one")
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "two")
    with pytest.raises(OddDataset, match=r"has several splits; give one of '.*two/test', '.*two/train'"):
        open_source(tmp_path / "two")
    assert len(open_source(tmp_path / "two" / "train")) == 20
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(OddDataset, match="cannot be opened"):
        open_source(tmp_path / "one")


def test_parts_and_copies(dataset, files):
    source = open_source(dataset)
    part = pickle.loads(pickle.dumps(source.subset([5, 2])))
    assert [part.encoded(i) for i in range(2)] == [files[n].read_bytes() for n in (5, 2)]
    assert part.path(0) == "dataset[5]"
    train, held = split(source, 0.3)
    assert sorted([*train.rows, *held.rows]) == list(range(20))
    with pytest.raises(TooFewImages, match="holds no image"):
        source.subset([])


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackage, match=r"pip install imagen-fast\[datasets\]"):
        open_source(3)
