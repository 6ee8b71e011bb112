"""Builds the native modules: one CMake run makes both, setuptools puts them where they belong.

Switches, from the environment: IMAGEN_FAST_WITH_CUDA=OFF and IMAGEN_FAST_WITH_JPEG=OFF leave a part out,
IMAGEN_FAST_NATIVE=OFF leaves out all of it (plain PyTorch serves instead); CMAKE_ARGS goes to CMake as it is.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
OLDEST_CMAKE = (3, 22)
SWITCHES = ("IMAGEN_FAST_WITH_CUDA", "IMAGEN_FAST_WITH_JPEG")
# Top-level folders that are installed inside the package.
MAPPED = {"imagen_fast.kernels": "kernels", "imagen_fast.benchmarks": "benchmarks"}


def find_cmake() -> str:
    """The machine's own CMake where it is new enough, else the one from the build requirements."""
    candidates = [shutil.which("cmake")]
    try:
        import cmake

        candidates.append(os.path.join(cmake.CMAKE_BIN_DIR, "cmake"))
    except ImportError:
        pass
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        version = re.search(r"(\d+)\.(\d+)", answer.stdout)
        if version and tuple(map(int, version.groups())) >= OLDEST_CMAKE:
            return candidate
    wanted = ".".join(map(str, OLDEST_CMAKE))
    raise SystemExit(f"imagen_fast: no CMake {wanted} or newer was found; `pip install cmake` brings one.")


class CMakeBuild(build_ext):
    """Both extensions come from one configure and one build, in a folder that later builds reuse."""

    def build_extensions(self) -> None:
        folder = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        cmake = find_cmake()
        self.configure(cmake, folder)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
        subprocess.run([cmake, "--build", folder, "--parallel", jobs], check=True)
        self.forget_earlier_results()
        subprocess.run([cmake, "--install", folder, "--prefix", Path(self.build_lib).resolve()], check=True)
        if left_out := (folder / "left_out.txt").read_text().strip():
            print(f"imagen_fast: built without {left_out}", file=sys.stderr, flush=True)

    def configure(self, cmake: str, folder: Path) -> None:
        import pybind11

        command = [
            *(cmake, "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"),
            *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
            *(f"-D{name}={os.environ.get(name, 'ON')}" for name in SWITCHES),
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        reused = (folder / "CMakeCache.txt").exists()
        done = subprocess.run(command)
        if done.returncode and reused:
            # A cache made by another CMake, or in a folder that has since moved, is refused: start afresh.
            shutil.rmtree(folder)
            done = subprocess.run(command)
        done.check_returncode()

    def forget_earlier_results(self) -> None:
        """What is left out of this build must not survive from an earlier one."""
        for extension in self.extensions:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            (ROOT / self.get_ext_filename(self.get_ext_fullname(extension.name))).unlink(missing_ok=True)


def extensions() -> list[Extension]:
    # Optional: a machine without the CUDA toolkit builds and installs the rest.
    cuda = Extension("imagen_fast.native._cuda", [], optional=True)
    return [Extension("imagen_fast.native._cpu", []), cuda]


def packages() -> list[str]:
    mapped = [f"{name}.{sub}" for name, folder in MAPPED.items() for sub in find_packages(folder)]
    return [*find_packages(include=["imagen_fast", "imagen_fast.*"]), *MAPPED, *mapped]


# With this folder on the path, the step that Hugging Face's `kernels` adds to setuptools would find ours.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != ROOT]

setup(
    packages=packages(),
    package_dir=MAPPED,
    ext_modules=extensions() if os.environ.get("IMAGEN_FAST_NATIVE", "ON") != "OFF" else [],
    cmdclass={"build_ext": CMakeBuild},
)
