"""The folder in which the pages' commands run: small data under every name that a page uses."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from imagen_fast.data import photos

SIDE = 64


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with photos/, labelled/ and birds/ (a subfolder a class), shards, saved/ and image.jpg."""
    place = tmp_path_factory.mktemp("pages")
    pictures = [Image.fromarray(tile.transpose(1, 2, 0)) for tile in photos(SIDE).images[:8]]

    def folder(name: str, *kinds: str) -> list[Path]:
        files = []
        for number, picture in enumerate(pictures):
            file = place / name / kinds[number % len(kinds)] / f"{number:02}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file, quality=90)
            files.append(file)
        return files

    files = folder("photos", "")
    folder("labelled", "cats", "dogs")
    folder("birds", "ducks", "geese")
    pictures[0].save(place / "image.jpg")
    _shards(place / "shards", files, 128, "train-{:06}.tar")
    _shards(place, files, 2, "train-{:03}.tar")
    _dataset(place / "saved", files)
    return place


def _shards(place: Path, files: list[Path], count: int, name: str) -> None:
    place.mkdir(exist_ok=True)
    for number in range(count):
        with tarfile.open(place / name.format(number), "w") as archive:
            for file in files[number % 2 :: 2]:
                archive.add(file, file.name)


def _dataset(place: Path, files: list[Path]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    columns = {"image": [str(file) for file in files], "label": [n % 2 for n in range(len(files))]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(place)
