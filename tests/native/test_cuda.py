"""What the assembler says of the compiled CUDA kernels."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from imagen_fast import native
from imagen_fast.native import library


@pytest.mark.skipif(not native.build_info()["cuda"], reason="built without CUDA")
def test_no_kernel_spills_on_any_chip():
    triton = find_spec("triton")
    tool = triton and Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
    if not tool or not tool.exists():
        pytest.skip("needs cuobjdump, which Triton brings")
    module = library.cuda().__file__
    told = subprocess.run([tool, "-res-usage", module], capture_output=True, text=True, check=True).stdout
    # Each function's name, and on the next line what it takes.
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    kernels = [(name, *map(int, rest)) for name, *rest in re.findall(pattern, told)]
    chips = len(native.cuda.compiled_architectures())
    # 16 that resample, one for their weights, two for marks.
    assert len(kernels) == 19 * chips
    for name, registers, stack, _, local in kernels:
        assert stack == local == 0, name
        # Three blocks of 384 threads are to fit a multiprocessor.
        assert registers <= 56 or "8resample" not in name, name
