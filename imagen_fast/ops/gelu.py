"""GELU and its quick approximation, faster than PyTorch's in bf16 on the CPU.

Like `layer_norm` details of our layers, not operations: in all else they are plain PyTorch. Under a compiler
too: the step of a model measured the same as with what it fuses itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.cpu import gelu as cpu

# Of fewer values the call of an operator written in Python costs more than the kernel saves.
LEAST = 2**18


def gelu(x: Tensor) -> Tensor:
    """x times the share of a standard normal distribution below x (Hendrycks & Gimpel 2016)."""
    # A compiler would make a graph of its own for what is smaller.
    if cpu.refusal(x) is None and (torch.compiler.is_compiling() or x.numel() >= LEAST):
        return cpu.gelu(x, quick=False)
    return torch.nn.functional.gelu(x)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x) (Hendrycks & Gimpel 2016), what ImageGPT and CLIP were trained with.

    In bf16 on the CPU one pass over memory each way, and of x only is kept what the backward needs.
    """
    # Fewer values too: PyTorch rounds each of its steps.
    if cpu.refusal(x) is None:
        return cpu.gelu(x, quick=True)
    return x * torch.sigmoid(1.702 * x)
