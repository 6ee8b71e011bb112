"""Where nvJPEG is looked for, and what is told where it cannot serve."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from imagen_fast import native
from imagen_fast.errors import BackendUnavailable
from imagen_fast.native import decode_batch, nvjpeg


@pytest.fixture
def places(tmp_path, monkeypatch):
    """No library anywhere yet; the folders where one would lie."""
    packages = {"nvidia": tmp_path / "site/nvidia", "torchvision": tmp_path / "site/torchvision"}
    monkeypatch.setattr(nvjpeg, "_package", lambda name: [packages[name]])
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(nvjpeg, "TOOLKIT", tmp_path / "none")
    nvjpeg.find_nvjpeg.cache_clear()
    yield tmp_path
    nvjpeg.find_nvjpeg.cache_clear()


def test_the_wheel_comes_before_the_toolkit_and_torchvisions_last(places):
    libraries = [
        "site/torchvision.libs/libnvjpeg.36e11081.so.13",
        "toolkit/lib64/libnvjpeg.so.13",
        "site/nvidia/nvjpeg/lib/libnvjpeg.so.12",
        "site/nvidia/cu13/lib/libnvjpeg.so.13",
    ]
    assert nvjpeg.find_nvjpeg() is None
    for library in libraries:
        path = places / library
        path.parent.mkdir(parents=True)
        path.touch()
        nvjpeg.find_nvjpeg.cache_clear()
        assert nvjpeg.find_nvjpeg() == str(path)


@pytest.mark.skipif(nvjpeg.find_nvjpeg() is None, reason="no nvJPEG")
def test_the_functions_are_nvjpegs():
    source = Path(__file__).parents[2] / "csrc/cuda/nvjpeg_library.cpp"
    names = re.findall(r'"(nvjpeg\w+)"', source.read_text())
    assert len(names) == 12
    library = ctypes.CDLL(nvjpeg.find_nvjpeg())
    assert not [name for name in names if not hasattr(library, name)]


@pytest.mark.skipif(not native.build_info()["cuda"], reason="built without CUDA")
def test_without_nvjpeg_there_is_one_sentence(places):
    assert "pip install nvidia-nvjpeg" in native.no_gpu_decoder_because()
    with (
        pytest.raises(BackendUnavailable, match="cannot be decoded on a GPU: nvJPEG was not found"),
        decode_batch._gpu_decoder(0),
    ):
        pass


@pytest.mark.skipif(not native.build_info()["cuda"], reason="built without CUDA")
def test_a_library_that_is_none_is_told(places):
    path = places / "toolkit/lib64/libnvjpeg.so.13"
    path.parent.mkdir(parents=True)
    path.write_text("no library")
    nvjpeg.find_nvjpeg.cache_clear()
    with (
        pytest.raises(BackendUnavailable, match="cannot be decoded on a GPU: nvJPEG does not load"),
        decode_batch._gpu_decoder(0),
    ):
        pass
