"""Where the members of a tar file lie, held against Python's own reader."""

import io
import os
import tarfile

import numpy as np
import pytest

from imagen_fast.data.tar_index import TarError, TarFile


def written(path, files, format=tarfile.USTAR_FORMAT):
    """A tar file of (name, bytes)."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    return path


def members(path):
    return [(m.name, m.offset, m.size) for m in TarFile(path).members()]


def by_tarfile(path):
    with tarfile.open(path) as archive:
        return [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("format", FORMATS)
def test_members_are_where_tarfile_finds_them(tmp_path, format):
    rng = np.random.default_rng(0)
    long = "a/" * 60 + "b" * 60 + ".jpg"  # more than 100 bytes, and to be split before the last 100
    names = ["a.jpg", "a.cls", "d/b.c.png", long, "ä/ö.jpg", *(f"{i}.bin" for i in range(50))]
    if format != tarfile.USTAR_FORMAT:
        names.append("x" * 400 + ".jpg")
    sizes = [0, 1, 511, 512, 513, *rng.integers(0, 20000, len(names))]
    files = [(name, rng.bytes(size)) for name, size in zip(names, sizes, strict=False)]
    path = written(tmp_path / "a.tar", files, format)
    assert members(path) == by_tarfile(path)
    assert [name for name, _, _ in members(path)] == names
    file = TarFile(path)
    for (name, data), member in zip(files, file.members(), strict=True):
        assert file.read(member.offset, member.size) == data, name
        assert data.startswith(member.head)


def test_folders_and_links_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("n" * 150)
            info.type, info.linkname = kind, "m" * 150
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("last.jpg"))
    assert members(tmp_path / "a.tar") == by_tarfile(tmp_path / "a.tar")
    assert [name for name, _, _ in members(tmp_path / "a.tar")] == ["last.jpg"]


def test_a_size_that_octal_digits_cannot_hold(tmp_path):
    info = tarfile.TarInfo("large.jpg")
    info.size = 9 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    found = TarFile(tmp_path / "a.tar").members()
    assert next(found)[:3] == ("large.jpg", 512, 9 << 30)
    with pytest.raises(TarError, match="ends at byte 512, in the middle of a member"):
        next(found)


@pytest.mark.parametrize("end", [512 * 5, 512 * 4 + 11])
def test_an_end_between_members_has_a_mark(tmp_path, end):
    path = written(tmp_path / "a.tar", [("a.jpg", b"x" * 600), ("b.jpg", b"y" * 10)])
    whole = members(path)
    path.write_bytes(path.read_bytes()[:end])
    found = TarFile(path).members()
    assert [next(found)[:3] for _ in range(2)] == whole
    with pytest.raises(TarError, match=f"ends at byte {end}, without the mark of an end"):
        next(found)
    path.write_bytes(path.read_bytes().ljust(512 * 5, b"\0") + bytes(512))
    assert members(path) == whole


@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_never_more_than_an_error(tmp_path, format):
    """Cut anywhere, and with bytes changed anywhere: members found lie within the file, or it says where."""
    rng = np.random.default_rng(1)
    name = "n" * (90 if format == tarfile.USTAR_FORMAT else 200)
    files = [(f"{name}{i}.jpg", rng.bytes(int(rng.integers(0, 1500)))) for i in range(6)]
    good = written(tmp_path / "a.tar", files, format).read_bytes()[: 512 * 40]
    whole = members(tmp_path / "a.tar")
    errors = 0
    for trial in range(300):
        data = bytearray(good[: int(rng.integers(len(good)))] if trial % 2 else good)
        for _ in range(trial % 4 if trial % 2 else 1 + trial % 8):
            if len(data):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path = tmp_path / "b.tar"
        path.write_bytes(data)
        found = []
        try:
            found.extend(TarFile(path).members())
        except TarError:
            errors += 1
        assert len(found) <= len(whole)
    assert errors > 50


def test_the_file_is_closed_when_nobody_holds_it(tmp_path):
    file = TarFile(written(tmp_path / "a.tar", [("a.jpg", b"x")]))
    descriptor = file._descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
