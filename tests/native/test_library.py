"""Loading: what is there is told, what is missing too, and importing costs next to nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import BackendUnavailable
from imagen_fast.native import library


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_build_says_what_it_holds():
    info = native.build_info()
    assert info["cpu"]
    assert info["instruction_set"] in ("portable", "avx2", "avx512", "avx512_bf16")
    assert info["jpeg"] == ("JPEG" not in info["left_out"])
    assert info["cuda"] == ("CUDA" not in info["left_out"])


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo to compare with")
def test_features_are_those_that_the_kernel_lists():
    flags = Path("/proc/cpuinfo").read_text().split()
    features = native.cpu_features()
    assert features["avx2"] == ("avx2" in flags and "fma" in flags)
    assert features["avx512_bf16"] == ("avx512_bf16" in flags)
    assert features["amx_bf16"] <= ("amx_bf16" in flags)


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="portable, avx2, avx512, avx512_bf16"):
        native.use_instruction_set("mmx")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_openmp_library_in_the_process():
    """Two would keep two pools of threads that fight over the processor."""
    code = (
        "import imagen_fast.native as n, torch; assert n.available(); n.gradient_norm([torch.ones(10)])\n"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'omp' in line.split()[-1]}))"
    )
    assert python(code) == "1"


def test_without_the_modules_all_else_runs(monkeypatch):
    monkeypatch.setattr(library, "_import", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name)))
    library.load.cache_clear()
    try:
        assert not native.available()
        assert "not built" in native.unavailable_because()
        assert not native.jpeg_available()
        assert native.build_info()["cpu"] is False
        assert not any(native.cpu_features().values())
        assert native.cuda.device_count() == 0
        with pytest.raises(BackendUnavailable, match="pip install"):
            native.gradient_norm([torch.ones(1)])
    finally:
        library.load.cache_clear()


def test_the_cuda_module_needs_no_driver():
    if not native.build_info()["cuda"]:
        pytest.skip(native.build_info()["left_out"])
    assert (
        python("from imagen_fast import native; print(native.cuda.device_count())", CUDA_VISIBLE_DEVICES="")
        == "0"
    )
    assert set(native.cuda.compiled_architectures()) >= {"80"}


def test_importing_costs_little_beyond_torch():
    """At most 0.3 s, and nothing heavy that torch has not loaded itself."""
    code = (
        "import sys, time, torch; before = set(sys.modules); start = time.process_time()\n"
        "import imagen_fast, imagen_fast.native; cost = time.process_time() - start\n"
        "heavy = {'triton', 'transformers', 'matplotlib', 'sklearn', 'timm', 'PIL'}\n"
        "new = heavy & (set(sys.modules) - before); assert not new, new\n"
        "assert not torch.cuda.is_initialized()\n"
        "print(cost)"
    )
    assert statistics.median(float(python(code)) for _ in range(3)) < 0.3
