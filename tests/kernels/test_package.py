"""The package as a package: its name, and that it loads where nothing can run."""

import subprocess
import sys
from pathlib import Path

import torch

from imagen_fast.kernels import launch, masked_patch_attention, masked_pixel_mse

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_no_other_name() -> None:
    failed = run("import sys; sys.path.insert(0, '.'); import kernels")
    assert failed.returncode != 0
    assert "its name is imagen_fast.kernels" in failed.stderr


def test_importing_the_package_leaves_triton_alone() -> None:
    done = run("import sys, imagen_fast.kernels; assert 'triton' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_without_triton_the_reason_is_given() -> None:
    done = run(
        "import importlib.util, torch\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "from imagen_fast.kernels import masked_patch_attention as attention, masked_pixel_mse as mse\n"
        "q = torch.zeros(1, 2, 1, 32)\n"
        "assert attention.supports(q, q, q) == 'triton is not installed'\n"
        "assert mse.supports(torch.zeros(1, 1, 12), torch.zeros(1, 3, 2, 2)) == 'triton is not installed'"
    )
    assert done.returncode == 0, done.stderr


def test_cpu_tensors_are_refused_outside_the_interpreter() -> None:
    q = torch.zeros(1, 2, 1, 32)
    answers = {
        masked_patch_attention.supports(q, q, q),
        masked_pixel_mse.supports(torch.zeros(1, 1, 12), torch.zeros(1, 3, 2, 2)),
    }
    assert answers == (
        {None} if launch.INTERPRETED else {"Triton kernels run on CUDA tensors, these are on cpu"}
    )
