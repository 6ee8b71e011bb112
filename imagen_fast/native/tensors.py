"""What a tensor must be before its address may cross into native code."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput

# As csrc/common/number_types.h numbers them.
DTYPES = {torch.float32: 0, torch.bfloat16: 1}


def dtype_number(name: str, x: Tensor) -> int:
    if x.dtype not in DTYPES:
        raise InvalidInput(f"{name} must be float32 or bfloat16, not {x.dtype}")
    return DTYPES[x.dtype]


def on_cpu(name: str, x: Tensor) -> None:
    if x.device.type != "cpu":
        raise InvalidInput(f"{name} must be on the CPU, not on {x.device}")


def dense(name: str, x: Tensor, size: int | None = None, dtype: torch.dtype | None = None) -> int:
    """The address of a contiguous CPU tensor of this many values and this type."""
    on_cpu(name, x)
    if not x.is_contiguous():
        raise InvalidInput(
            f"{name} must be contiguous, not of strides {x.stride()} and shape {tuple(x.shape)}"
        )
    if size is not None and x.numel() != size:
        raise InvalidInput(f"{name} must have {size} values, not {x.numel()}")
    if dtype is not None and x.dtype != dtype:
        raise InvalidInput(f"{name} must be {dtype}, not {x.dtype}")
    return x.data_ptr()
