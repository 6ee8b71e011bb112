"""Layer normalisation whose gradients can be trusted in half precision on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.cpu import norm as cpu


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension (Ba et al. 2016).

    PyTorch's own, except for half types on the CPU: there it adds the gradients of weight and bias in
    half precision over all rows of the batch, which loses most of them, so these go to our kernel, or
    through float32. It is a detail of our layers, not one of the operations: `use_backend` does not reach it.

    Args:
        x: [..., E]; weight, bias: [E].
    """
    shape = x.shape[-1:]
    if cpu.refusal(x, weight, bias) is None:
        return cpu.norm(x, weight, bias, eps)
    if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):
        wide = torch.nn.functional.layer_norm(x.float(), shape, weight.float(), bias.float(), eps)
        return wide.to(x.dtype)
    return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
