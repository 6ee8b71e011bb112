"""The report as a PNG."""

from __future__ import annotations

import sys

import pytest
from PIL import Image
from recordings import empty_run, gpu_run

from imagen_fast.errors import MissingPackage
from imagen_fast.profiling import picture


@pytest.mark.parametrize("made", [gpu_run, empty_run])
def test_every_run_has_a_picture(made, tmp_path):
    pytest.importorskip("matplotlib")
    recording, summary, verdict = made()
    # A dollar sign begins mathematics in matplotlib.
    recording.command.append("--tag=$broken{")
    picture.write(recording, summary, verdict, tmp_path / "profile.png")
    with Image.open(tmp_path / "profile.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackage, match=r"pip install imagen-fast\[train\]"):
        picture.write(*empty_run(), tmp_path / "profile.png")
