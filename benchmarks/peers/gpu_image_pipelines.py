"""What PyTorch's decoders make of encoded images on a GPU: as `image_pipelines`; it stays on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from imagen_fast.benchmarks.peers.image_pipelines import MEAN, STD, Pipeline, Work, v2_view


def torchvision_cuda(work: Work) -> Pipeline:
    """torchvision's decoder, deprecated since 0.29, and its transforms of uint8 tensors."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return _with_v2(work, partial(decode_jpeg, mode=ImageReadMode.RGB, device="cuda"))


def torchcodec_cuda(work: Work) -> Pipeline:
    """The decoder that torchvision points to now, and torchvision's transforms."""
    from torchcodec.decoders import decode_jpeg

    return _with_v2(work, partial(decode_jpeg, device="cuda"))


def _with_v2(work: Work, decode: Callable[[list[Tensor]], list[Tensor]]) -> Pipeline:
    """`decode` makes RGB on the device of the bytes of a whole batch; the transforms follow there."""
    from torchvision.transforms.v2 import functional

    encoded = work.tensors()
    levels = torch.empty(len(encoded), 3, work.side, work.side, dtype=torch.uint8, device="cuda")

    def run() -> Tensor:
        for i, image in enumerate(decode(encoded)):
            levels[i] = v2_view(work, i, image)
        pixels = functional.to_dtype(levels, torch.float32, scale=True)
        return functional.normalize(pixels, list(MEAN), list(STD), inplace=True)

    return run
