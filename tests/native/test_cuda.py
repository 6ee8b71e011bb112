"""The compiled CUDA kernels against plain PyTorch, and what the assembler says of them."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput

MEAN, STD = (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.25)
SHAPES = [(2, 5, 7, 3), (1, 1, 1, 1), (3, 224, 224, 3), (2, 9, 4, 4), (2, 3, 3, 2), (0, 4, 4, 3)]


@pytest.mark.gpu
@pytest.mark.skipif(native.cuda.device_count() == 0, reason="no GPU, or built without CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(2, 5, 7, 3), (1, 1, 1, 1), (3, 224, 224, 3), (2, 9, 4, 4), (2, 3, 3, 2), (0, 4, 4, 3)]
)
def test_normalise_images(shape, dtype):
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    flip = torch.rand(shape[0], device="cuda") < 0.5
    mean, std = MEAN[: shape[3]], STD[: shape[3]]
    mirrored = torch.where(flip[:, None, None, None], pixels.flip(2), pixels)
    exact = (mirrored.double() / 255 - torch.tensor(mean).cuda()) / torch.tensor(std).cuda()
    planes = native.cuda.normalise_images(pixels, mean, std, flip, dtype)
    assert planes.dtype == dtype
    torch.testing.assert_close(
        planes.double(), exact.permute(0, 3, 1, 2), rtol=torch.finfo(dtype).eps, atol=1e-6
    )


def test_pixels_on_the_cpu_are_refused():
    with pytest.raises(InvalidInput, match="on a GPU"):
        native.cuda.normalise_images(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), MEAN[:3], STD[:3])


@pytest.mark.skipif(not native.build_info()["cuda"], reason="built without CUDA")
def test_no_kernel_spills_on_any_chip():
    triton = find_spec("triton")
    tool = triton and Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
    if not tool or not tool.exists():
        pytest.skip("needs cuobjdump, which Triton brings")
    module = native.library.cuda().__file__
    told = subprocess.run([tool, "-res-usage", module], capture_output=True, text=True, check=True).stdout
    # Each function's name, and on the next line what it takes.
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    kernels = [(name, *map(int, rest)) for name, *rest in re.findall(pattern, told)]
    chips = len(native.cuda.compiled_architectures())
    # 12 that normalise, 16 that resample, one for their weights, two for marks.
    assert len(kernels) == 31 * chips
    for name, registers, stack, _, local in kernels:
        assert stack == local == 0, name
        # Three blocks of 384 threads are to fit a multiprocessor.
        assert registers <= 56 or "8resample" not in name, name
