"""Root-mean-square normalisation, in one pass where PyTorch takes many on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.cpu import norm as cpu


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean of x^2 + eps) * weight over the last dimension (Zhang & Sennrich 2019).

    PyTorch's own, except in bf16 on the CPU, where that goes over the rows once for each of its operations.
    Like `layer_norm` a detail of our layers, not one of the operations.

    Args:
        x: [..., E]; weight: [E].
    """
    # Under a compiler too: the step of a model measured the same as with what it fuses itself.
    if cpu.refusal(x, weight) is None:
        return cpu.norm(x, weight, None, eps)
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)
