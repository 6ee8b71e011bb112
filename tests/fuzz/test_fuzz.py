"""A share of `make fuzz`: the native decoder under sanitizers, on odd files and on broken ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import odd_jpegs
import pytest

from imagen_fast import native

HERE = Path(__file__).parent
MUTATIONS = 30_000

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or not native.jpeg_available(), reason="needs cmake and libjpeg-turbo"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    build = tmp_path_factory.mktemp("fuzz")
    for command in (["cmake", "-S", HERE, "-B", build], ["cmake", "--build", build, "--parallel"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if "sanitizer" in done.stderr + done.stdout and "cannot find" in done.stderr + done.stdout:
            pytest.skip("the compiler has no sanitizers")
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "fuzz_decode"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    odd_jpegs.main(folder)
    return sorted(folder.iterdir())


def test_nothing_that_is_fed_to_the_decoder_is_a_fault(program, files):
    done = subprocess.run([program, str(MUTATIONS), "1", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    natively = sum(file.natively for file in odd_jpegs.corpus().values())
    assert f"{len(files)} files, {natively} accepted; {MUTATIONS} mutations" in done.stdout
    assert "no fault" in done.stdout
    # Each with libjpeg-turbo's coefficients, by our own decoder.
    assert int(re.search(r"(\d+) compared", done.stdout)[1]) > MUTATIONS // 20


def test_how_it_is_called(program):
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr
