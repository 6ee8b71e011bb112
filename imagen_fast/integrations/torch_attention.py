"""Our attention in PyTorch's registry of flash attention: plain calls of `scaled_dot_product_attention`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, library
from torch.nn import attention

from imagen_fast.errors import BackendUnavailable
from imagen_fast.ops import flash

NAME = "imagen_fast"


def register_flash_attention() -> None:
    """Make "imagen_fast" known to `torch.nn.attention.activate_flash_attention_impl`.

    Once it is active, calls of PyTorch's attention for which PyTorch chooses its flash kernels, on the CPU
    and on CUDA, run on ours where we have one: attention to all tokens, or of as many queries as keys to
    those before, without a mask and without dropped probabilities. All other calls run as before.
    `restore_flash_attention_impl` takes it away. Compiled graphs follow both without being compiled anew.

    Raises:
        BackendUnavailable: this PyTorch has no such registry.
    """
    if not hasattr(attention, "register_flash_attention_impl"):
        raise BackendUnavailable(
            f"PyTorch {torch.__version__} has no registry of flash attention, which PyTorch 2.11 has"
        )
    attention.register_flash_attention_impl(NAME, register_fn=_Active)


class _Active:
    """Our kernels before PyTorch's in its dispatcher, for as long as this is kept."""

    def __init__(self) -> None:
        # Closed, it takes away what was registered, at once and whoever still refers to it.
        self.kept = ExitStack()
        aten = self.kept.enter_context(library._scoped_library("aten", "IMPL"))
        _put_before(aten, "_scaled_dot_product_flash_attention_for_cpu", "CPU", _forward_cpu)
        _put_before(aten, "_scaled_dot_product_flash_attention_for_cpu_backward", "CPU", _backward_cpu)
        if torch.version.cuda is not None:
            _put_before(aten, "_scaled_dot_product_flash_attention", "CUDA", _forward_cuda)
            _put_before(aten, "_scaled_dot_product_flash_attention_backward", "CUDA", _backward_cuda)

    def remove(self) -> None:
        self.kept.close()


def _put_before(aten: Any, name: str, key: str, ours: Callable[..., Any]) -> None:
    """Let calls go to `ours`, and to whom they went before where that gives None."""
    before = library.get_kernel(f"aten::{name}", key)

    def serve(keys: Any, *args: Any, **kwargs: Any) -> Any:
        made = ours(*args, **kwargs)
        return before.call_boxed(keys, *args, **kwargs) if made is None else made

    aten.impl(name, serve, key, with_keyset=True)


def _forward_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor] | None:
    if attn_mask is not None:
        return None
    made = _forward(query, key, value, dropout_p, is_causal, scale)
    # As PyTorch lays it out: a compiled graph counts on that.
    return None if made is None else (made[0], made[1].transpose(1, 2).contiguous().transpose(1, 2))


def _backward_cpu(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, ...] | None:
    if attn_mask is not None:
        return None
    return _backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, scale)


def _forward_cuda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple | None:
    if return_debug_mask:
        return None
    made = _forward(query, key, value, dropout_p, is_causal, scale)
    if made is None:
        return None
    # No lengths of packed sequences; the state of a random generator that nothing was drawn from; no mask.
    seed = torch.zeros(2, dtype=torch.uint64, device=query.device)
    offset = torch.zeros((), dtype=torch.uint64, device=query.device)
    return *made, None, None, query.shape[2], key.shape[2], seed, offset, query.new_empty(0)


def _backward_cuda(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Tensor,
    philox_offset: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor, ...] | None:
    gradients = _backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, scale)
    if gradients is None:
        return None
    return tuple(_laid_out_as(g, x) for g, x in zip(gradients, (query, key, value), strict=True))


def _forward(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float, is_causal: bool, scale: float | None
) -> tuple[Tensor, Tensor] | None:
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if not _served(q, k, v, dropout_p, is_causal):
        return None
    out, lse = flash.forward(q, k, v, is_causal, _scale(q, scale))
    return _laid_out_as(out.transpose(1, 2), query), lse


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, ...] | None:
    d_out, q, k, v, made = (x.transpose(1, 2) for x in (grad_out, query, key, value, out))
    if not _served(q, k, v, dropout_p, is_causal):
        return None
    gradients = flash.backward(d_out, q, k, v, made, logsumexp, is_causal, _scale(q, scale))
    return tuple(x.transpose(1, 2) for x in gradients)


def _served(q: Tensor, k: Tensor, v: Tensor, dropout_p: float, is_causal: bool) -> bool:
    return dropout_p == 0 and q.numel() > 0 and k.numel() > 0 and flash.kernel_serves(q, k, v, is_causal)


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def _laid_out_as(made: Tensor, like: Tensor) -> Tensor:
    wanted = torch.empty_like(like)
    return made if made.stride() == wanted.stride() else wanted.copy_(made)
