"""2^x as the softmaxes of the CPU kernels take it, to measure how many a second there are."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.tensors import dense


def powers_of_two(x: Tensor, half: bool, repeats: int = 1) -> Tensor:
    """2^x of a contiguous float32 tensor, at most 127; made `repeats` times over.

    Args:
        half: only as exactly as bfloat16 needs them, which takes fewer products.
    """
    y = torch.empty_like(x)
    library.cpu().powers_of_two(
        x=dense("x", x, None, torch.float32),
        count=x.numel(),
        y=y.data_ptr(),
        half=half,
        repeats=repeats,
        threads=library.threads(),
    )
    return y
