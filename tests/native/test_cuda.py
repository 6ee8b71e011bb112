"""The compiled CUDA kernels against plain PyTorch."""

from __future__ import annotations

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
