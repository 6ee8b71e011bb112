"""What is shipped: the sdist, the wheel made from it, and the editable install hold what they should."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from imagen_fast import __version__, native

ROOT = Path(__file__).parents[2]
# Where a folder of the tree lies once installed.
PLACES = {
    "imagen_fast": "imagen_fast",
    "kernels": "imagen_fast/kernels",
    "benchmarks": "imagen_fast/benchmarks",
}


def sources(folder: str, pattern: str) -> set[str]:
    """The files of the tree, relative to `folder`."""
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(pattern)}


def python(code: str, cwd: Path | str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_sdist_holds_all_that_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in PLACES:
        assert names >= {f"{folder}/{name}" for name in sources(folder, "*.py")}
    for pattern in ("*.h", "*.cpp", "*.cu"):
        assert names >= {f"csrc/{name}" for name in sources("csrc", pattern)}
    assert names >= {"setup.py", "CMakeLists.txt", "pyproject.toml", "LICENSE", "Makefile"}
    assert not [
        name for name in names if name.endswith((".so", ".pyc")) or "/results/" in name or "/." in name
    ]


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in PLACES.items():
        assert names >= {f"{place}/{name}" for name in sources(folder, "*.py")}
    for part in ("page.css", "page.js"):
        assert f"imagen_fast/profiling/page/{part}" in names
    modules = {name.split(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert "imagen_fast/native/_cpu" in modules
    assert ("imagen_fast/native/_cuda" in modules) == (shutil.which("nvcc") is not None)
    info = f"imagen_fast-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"imagen_fast", info}
    assert f"{info}/licenses/LICENSE" in names
    assert not [
        name for name in names if "/results/" in name or "/." in name or name.endswith((".cpp", ".h"))
    ]


def test_the_installed_wheel_works_anywhere(installed, tmp_path):
    """Its own files, in a folder from which the tree cannot be seen."""
    code = (
        "import torch, imagen_fast.kernels, imagen_fast.benchmarks, imagen_fast.native._cpu as cpu\n"
        "from imagen_fast import native\n"
        "assert native.available(), native.unavailable_because()\n"
        "assert native.gradient_norm([torch.full((9,), 2.0)]) == 6\n"
        "print(imagen_fast.kernels.__file__, imagen_fast.benchmarks.__file__, cpu.__file__, sep='\\n')"
    )
    files = python(code, tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert all(Path(file).is_relative_to(installed) for file in files), files


@pytest.mark.parametrize("here", ["the tree", "elsewhere"])
def test_the_editable_install_holds_it_all(here, tmp_path):
    """From the tree's root too, where a bare `kernels` folder is in sight."""
    # More than one: the tree's own egg-info is in sight from its root.
    found = metadata.distributions(name="imagen-fast")
    origins = [json.loads(distribution.read_text("direct_url.json") or "{}") for distribution in found]
    if not any(origin.get("dir_info", {}).get("editable") for origin in origins):
        pytest.skip("this is no editable install")
    code = (
        "import imagen_fast as i, imagen_fast.kernels, imagen_fast.benchmarks, imagen_fast.native._cpu\n"
        "print(*(m.__file__ for m in (i, i.kernels, i.benchmarks, i.native._cpu)), sep='\\n')"
    )
    files = python(code, ROOT if here == "the tree" else tmp_path).splitlines()
    folders = [Path(file).parent for file in files]
    assert folders == [ROOT / name for name in ("imagen_fast", "kernels", "benchmarks", "imagen_fast/native")]


def test_kernels_answers_to_one_name():
    code = "try: import kernels\nexcept ImportError as error: print(error)"
    assert "imagen_fast.kernels" in python(code, ROOT)


def test_the_version_is_one():
    assert metadata.version("imagen-fast") == __version__


def test_a_build_without_cuda_and_jpeg_says_so_in_one_line_and_goes_on(unpacked, wheel, installed, tmp_path):
    """What an earlier build left in the same folders does not survive."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path)]
    switches = {"IMAGEN_FAST_WITH_CUDA": "OFF", "CMAKE_ARGS": "-DCMAKE_DISABLE_FIND_PACKAGE_JPEG=ON"}
    stale = tmp_path / "imagen_fast" / "native"
    shutil.copytree(installed / "imagen_fast" / "native", stale)
    done = subprocess.run(
        command, cwd=unpacked, capture_output=True, text=True, env={**os.environ, **switches}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.splitlines() if "built without" in line]
    assert "JPEG decoding" in line
    assert "CUDA kernels" in line
    assert not list(stale.glob("_cuda*"))
    code = "import torch, json, _cpu; print(json.dumps([_cpu.left_out, hasattr(_cpu, 'decode_jpeg')]))"
    left_out, decodes = json.loads(python(code, "/", PYTHONPATH=str(stale)))
    assert left_out in line
    assert not decodes


def test_missing_tools_are_noticed(tmp_path):
    """As on a machine without nvcc and libjpeg-turbo: the configuration goes through and lists both."""
    import pybind11

    command = [*("cmake", "-S", str(ROOT), "-B", str(tmp_path)), "-DCMAKE_DISABLE_FIND_PACKAGE_JPEG=ON"]
    if shutil.which("cmake") is None:
        import cmake

        command[0] = os.path.join(cmake.CMAKE_BIN_DIR, "cmake")
    python_at = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    hidden = {**os.environ, "CUDACXX": str(tmp_path / "no-nvcc")}
    subprocess.run([*command, *python_at], check=True, env=hidden, capture_output=True)
    left_out = (tmp_path / "left_out.txt").read_text()
    assert "JPEG decoding (no libjpeg-turbo headers)" in left_out
    assert "CUDA kernels (no nvcc)" in left_out


def test_the_native_build_can_be_left_out_whole(unpacked, tmp_path):
    """Then the package is plain Python and needs neither CMake nor a compiler."""
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path)]
    environment = {**os.environ, "IMAGEN_FAST_NATIVE": "OFF"}
    subprocess.run(command, cwd=unpacked, check=True, env=environment, capture_output=True)
    assert (tmp_path / "lib" / "imagen_fast" / "kernels" / "__init__.py").exists()
    assert not list(tmp_path.rglob("*.so"))


def test_this_build_reports_what_it_left_out():
    info = native.build_info()
    assert info["cpu"] or info["left_out"]
