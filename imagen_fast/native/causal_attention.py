"""Attention of pixels to those generated before them: see csrc/cpu/attention.h and csrc/cpu/causal_keys.h."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.attention import Attention, described
from imagen_fast.native.tensors import dtype_number

# height, width, above, left, right, prefix: `imagen_fast.ops.contexts.Window` says what they mean.
WindowNumbers = tuple[int, int, int, int, int, int]


def attention_on_grid(q: Tensor, k: Tensor, v: Tensor, window: WindowNumbers, scale: float) -> Attention:
    """All pixels [B, N, H, D] in raster order attend to those that the window lets them see."""
    keys = _keys(tuple(window), dtype_number("q", q), library.cpu().instruction_set())
    return described(q, k, v, scale, len(q), [], causal=keys)


# A model has few grids and contexts, and each layer asks for its tables again.
@lru_cache(maxsize=64)
def _keys(window: WindowNumbers, dtype: int, instruction_set: str) -> Any:
    """What each block of queries sees; how large a block is depends on the instruction set."""
    return library.cpu().CausalKeys(window=window, dtype=dtype)
