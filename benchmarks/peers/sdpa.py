"""PyTorch's scaled_dot_product_attention, by its own choice of kernel or by one that is forced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from imagen_fast.benchmarks.peers import Peer

# Of the plain products, for each score: in float32, with their gradients; as measured on the CPU.
MATH_BYTES = 15

# Its kernels that a GPU has; on the CPU its own choice is the one fused kernel there.
FORCED = {
    Peer(f"SDPA {name}", "torch", "pip install torch", needs_cuda=True): backend
    for name, backend in (
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("cuDNN", SDPBackend.CUDNN_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
    )
}


def attention(
    mask: Tensor | None, backend: SDPBackend | None = None, compiled: bool = False, causal: bool = False
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Of q [B, M, H, D] and k, v [B, N, H, D], transposed as ViTs do; `mask` broadcasts to [B, H, M, N]."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        with nullcontext() if backend is None else sdpa_kernel(backend):
            out = scaled_dot_product_attention(*heads_first, attn_mask=mask, is_causal=causal)
        return out.transpose(1, 2)

    return torch.compile(attend, dynamic=False) if compiled else attend
