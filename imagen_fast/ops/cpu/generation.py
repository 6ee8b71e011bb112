"""Where the native kernels of generation serve."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast import native
from imagen_fast.native import PackedLinear, StepBlock, StepCache, StepView

__all__ = ["PackedLinear", "StepBlock", "StepCache", "StepView", "serves"]

_UNAVAILABLE = native.unavailable_because()


def serves(x: Tensor) -> bool:
    """Whether they can take a model whose weights are such as `x`."""
    return _UNAVAILABLE is None and x.device.type == "cpu" and x.dtype == torch.float32
