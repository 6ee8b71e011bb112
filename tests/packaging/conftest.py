"""An sdist of this tree and the wheel that is built from it, once for all tests here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path("build") / f"cmake-{sys.implementation.cache_tag}"


def build(kind: str, source: Path, out: Path) -> Path:
    command = [*(sys.executable, "-m", "build", f"--{kind}"), "--no-isolation", "--skip-dependency-check"]
    done = subprocess.run([*command, "--outdir", out, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def unpacked(sdist, tmp_path_factory) -> Path:
    """The sdist's tree: what someone without the repository builds from."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    if (ROOT / BUILD).exists():
        shutil.copytree(
            ROOT / BUILD, tree / BUILD, copy_function=lambda *files: move_build_file(*files, tree)
        )
    return tree


def move_build_file(source: str, target: str, tree: Path) -> None:
    """Copy a file of this tree's native build, as if `tree` had been built.

    Its paths lead there and its time stays: what the sdist holds unchanged is then not compiled again, what
    it lacks or has anew is missed or compiled.
    """
    shutil.copy2(source, target)
    try:
        text = Path(source).read_text()
    except UnicodeDecodeError:
        return  # an object
    text = text.replace(str(ROOT), str(tree))
    # The environment stays where it is, often within this tree.
    Path(target).write_text(text.replace(sys.prefix.replace(str(ROOT), str(tree)), sys.prefix))
    shutil.copystat(source, target)


@pytest.fixture(scope="session")
def wheel(unpacked, tmp_path_factory) -> Path:
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder to put on the path, holding what the wheel installs."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    return target
