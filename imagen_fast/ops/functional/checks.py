"""What the operations' checks share."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the type that autocast asks for, as a matrix product would take them."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    wanted = torch.get_autocast_dtype(device)
    return tuple(x.to(wanted) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)


def same_kind(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Queries, keys and values must be of one floating-point type and on one device."""
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise InvalidInput(
            f"q, k and v must share a type and a device, not {q.dtype} on {q.device}, "
            f"{k.dtype} on {k.device}, {v.dtype} on {v.device}"
        )
    if q.dtype not in FLOATS:
        raise InvalidInput(f"q, k and v must be floating point, not {q.dtype}")
