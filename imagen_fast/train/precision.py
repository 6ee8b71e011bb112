"""In which type the working weights and activations of a run are."""

from __future__ import annotations

import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 matrices faster than fp32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = native.cpu_features()
    return features["amx_bf16"] or features["avx512_bf16"]


def working_type(precision: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where it is fast, fp32 elsewhere; or the one that is named."""
    if precision == "auto":
        return torch.bfloat16 if bf16_is_fast(device) else torch.float32
    if precision not in ("bf16", "fp32"):
        raise InvalidInput(f"precision must be 'auto', 'bf16' or 'fp32', not {precision!r}")
    return torch.bfloat16 if precision == "bf16" else torch.float32


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the first GPU, or the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput(f"device must be 'cpu' or 'cuda', not {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("there is no CUDA device here; use --device cpu")
    return device
