"""The command line as a user calls it, in this process; and a folder of pictures, some of them broken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_fast.cli import main


class Called(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(capsys):
    """Call `imagen-fast` with words; gives its status and what it printed."""

    def run(*words) -> Called:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return Called(end.value.code or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of eight readable images; beside them a truncated one, an empty one and a text file."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 128, (20, 24, 3)) + (128 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    whole = (folder / "dark" / "0.png").read_bytes()
    (folder / "dark" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "light" / "empty.jpg").write_bytes(b"")
    (folder / "light" / "notes.txt").write_text("no picture")
    return folder
