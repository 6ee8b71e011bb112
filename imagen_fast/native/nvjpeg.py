"""Where nvJPEG lies: in NVIDIA's wheel, in the CUDA toolkit, or beside torchvision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

# Newest first. Both have the interface that csrc/cuda/nvjpeg_library.h declares.
MAJORS: Final = (13, 12)
TOOLKIT: Final = Path("/usr/local/cuda")


@cache
def find_nvjpeg() -> str | None:
    """The library's path, or None."""
    for folder, pattern in _places():
        for major in MAJORS:
            for path in sorted(folder.glob(pattern.format(major=major))):
                return str(path)
    return None


def _places() -> Iterator[tuple[Path, str]]:
    """Folders, and what the library is called in each."""
    for folder in _package("nvidia"):
        yield folder, "cu*/lib/libnvjpeg.so.{major}"
        yield folder, "nvjpeg/lib/libnvjpeg.so.{major}"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if root := os.environ.get(variable):
            yield Path(root), "lib*/libnvjpeg.so.{major}"
    yield TOOLKIT, "lib*/libnvjpeg.so.{major}"
    for folder in _package("torchvision"):
        yield folder.parent, "torchvision.libs/libnvjpeg*.so.{major}"


def _package(name: str) -> list[Path]:
    """The folders of a package, without importing it."""
    found = find_spec(name)
    return [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
