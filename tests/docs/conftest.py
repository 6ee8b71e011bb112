"""The folder in which the pages' commands run: small data and a program, by the names that pages use."""

from __future__ import annotations

import functools
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from examples import ROOT
from imagen_fast.benchmarks import roofline
from imagen_fast.data import photos
from imagen_fast.profiling import peaks

SIDE = 64

# What somebody might want profiled.
TRAIN = """
import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(workers=0):
    images, labels = torch.randn(256, 3, 16, 16), torch.arange(256) % 10
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        for batch, target in DataLoader(TensorDataset(images, labels), 8, num_workers=workers):
            nn.functional.cross_entropy(model(batch), target).backward()
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=0)
    train(parser.parse_args().workers)
"""


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def machine_measured_once():
    """And not again for each benchmark and each profile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "measure", functools.cache(roofline.measure))
        patch.setattr(peaks, "measured_on_cpu", functools.cache(peaks.measured_on_cpu))
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with all that is named: pictures under three names and in shards, train.py, two records."""
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
    (place / "train.py").write_text(TRAIN)
    for name in ("before", "after"):
        shutil.copy(ROOT / "benchmarks" / "results" / "decode-cpu.json", place / f"{name}.json")
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
