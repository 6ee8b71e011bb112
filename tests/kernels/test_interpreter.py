"""Runs the kernel tests on the CPU, in a process of its own: Triton chooses its interpreter at import."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version

from imagen_fast.kernels import launch

HERE = Path(__file__).parent


@pytest.mark.skipif(launch.INTERPRETED, reason="is itself the interpreted run")
@pytest.mark.skipif(not launch.INSTALLED, reason="triton is not installed")
@pytest.mark.skipif(
    launch.INSTALLED
    and Version(version("triton")) < Version("3.7")
    and Version(np.__version__) >= Version("2.4"),
    reason="the interpreter of Triton 3.6 cannot convert the scalars of NumPy 2.4",
)
def test_kernels_under_the_interpreter() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            str(HERE),
            str(HERE.parent / "ops" / "test_attention_properties.py"),
            "-q",
            "-m",
            "not gpu",
            "-p",
            "no:cacheprovider",
        ],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    print(run.stdout, run.stderr)
    assert run.returncode == 0, f"the interpreted run failed; its report:\n{run.stdout}\n{run.stderr}"
    assert " passed" in run.stdout
