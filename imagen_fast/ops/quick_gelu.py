"""The quick approximation of GELU, in one pass where PyTorch takes several on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.cpu import quick_gelu as cpu


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x) (Hendrycks & Gimpel 2016), what ImageGPT and CLIP were trained with.

    Plain PyTorch, except in bf16 on the CPU: there one pass over memory each way, and of x only is kept what
    the backward needs. Like `layer_norm` a detail of our layers, not one of the operations.
    """
    # Under a compiler too: the step of a model measured the same as with what it fuses itself.
    if cpu.refusal(x) is None:
        return cpu.quick_gelu(x)
    return x * torch.sigmoid(1.702 * x)
