"""Kernels for packed rows of several lengths: PyTorch's varlen_attn, flash-attn, xformers.

Each function takes the lengths of the images' queries and keys ([B] integers on the CPU) and the device, and
gives attention of packed q [T, H, D] and k, v [T', H, D]. What depends on the lengths is made once. `causal`:
each row attends to itself and to those before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from imagen_fast.benchmarks.peers import FLASH_ATTN, VARLEN_ATTN, XFORMERS

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def varlen_attn(queries: Tensor, keys: Tensor, device: torch.device, causal: bool = False) -> Attention:
    (kernel,) = VARLEN_ATTN.load("varlen_attn")
    tables = _tables(queries, keys, device)
    window = (-1, 0 if causal else -1)
    return lambda q, k, v: kernel(q, k, v, *tables, window_size=window)


def flash_attn(queries: Tensor, keys: Tensor, device: torch.device, causal: bool = False) -> Attention:
    (kernel,) = FLASH_ATTN.load("flash_attn_varlen_func")
    tables = _tables(queries, keys, device)
    return lambda q, k, v: kernel(q, k, v, *tables, causal=causal)


def xformers(queries: Tensor, keys: Tensor, device: torch.device, causal: bool = False) -> Attention:
    kernel, fmha = XFORMERS.load("memory_efficient_attention", "fmha")
    mask = fmha.BlockDiagonalMask.from_seqlens(queries.tolist(), keys.tolist(), device=device)
    mask = mask.make_causal() if causal else mask
    return lambda q, k, v: kernel(q[None], k[None], v[None], attn_bias=mask)[0]


def _tables(queries: Tensor, keys: Tensor, device: torch.device) -> tuple[Tensor, Tensor, int, int]:
    """Where each image begins, and the longest: what both kernels with cumulative lengths take."""
    ends = (torch.nn.functional.pad(x.cumsum(0), (1, 0)).to(device, torch.int32) for x in (queries, keys))
    return *ends, int(queries.max()), int(keys.max())


KERNELS = {VARLEN_ATTN: varlen_attn, FLASH_ATTN: flash_attn, XFORMERS: xformers}
