"""Folders of real photographs in every guise that a decoder meets."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_fast.data import photos

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """A photograph of 240x180 pixels, put together from tiles."""
    tiles = photos(60).images[:12].reshape(3, 4, 3, 60, 60).transpose(0, 3, 1, 4, 2).reshape(180, 240, 3)
    return Image.fromarray(np.ascontiguousarray(tiles))


@pytest.fixture(scope="session")
def encode() -> Encode:
    def to_bytes(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return to_bytes


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar file of (name, bytes)."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shard() -> Callable[[Path, Iterable[tuple[str, bytes]]], Path]:
    return write_shard


@pytest.fixture
def shards(tmp_path: Path, folder: Path) -> Path:
    """The photographs of `folder` in four shards of five, with their classes: 0 and 1."""
    place = tmp_path / "shards"
    place.mkdir()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number in range(4):
        members = []
        for path in files[5 * number : 5 * number + 5]:
            kind = path.parent.parent.name
            members.append((f"{kind}/{path.stem}{path.suffix}", path.read_bytes()))
            members.append((f"{kind}/{path.stem}.cls", b"%d" % (kind == "right")))
        write_shard(place / f"set-{number:03}.tar", members)
    return place


@pytest.fixture
def folder(tmp_path: Path, photograph: Image.Image, encode: Encode) -> Path:
    """Two classes of ten photographs each, in three formats and different sizes."""
    kinds = [("JPEG", "jpg"), ("PNG", "PNG"), ("WEBP", "webp")]
    for number in range(20):
        kind, extension = kinds[number % 3]
        place = tmp_path / "set" / ("left" if number < 10 else "right") / f"deep{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        image = photograph.crop((number, 0, 140 + 3 * number, 180 - 4 * number))
        (place / f"{number:02}.{extension}").write_bytes(encode(image, kind))
    return tmp_path / "set"
