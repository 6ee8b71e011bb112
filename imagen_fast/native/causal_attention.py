"""Attention of pixels to those generated before them: see csrc/cpu/attention.h and csrc/cpu/causal_keys.h."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.attention import address
from imagen_fast.native.tensors import dtype_number

# height, width, above, left, right, prefix: `imagen_fast.ops.contexts.Window` says what they mean.
WindowNumbers = tuple[int, int, int, int, int, int]


def causal_attention_forward(
    q: Tensor, k: Tensor, v: Tensor, window: WindowNumbers, scale: float, out: Tensor, log_sums: Tensor
) -> None:
    """softmax(scale * q k^T) v over the keys that each query sees, into `out`.

    All are [B, N, H, D] in raster order, of any strides with a dense last dimension of even length; float32
    or bfloat16. `log_sums` [B, H, N] float32 gets what the backward needs: the base-2 logarithm of the sum of
    each row's exponentials.
    """
    problem, _alive = _problem(q, k, v, window, scale)
    problem.forward(out=address(out), log_sums=log_sums.data_ptr(), threads=library.threads())


def causal_attention_backward(
    d_out: Tensor,
    out: Tensor,
    log_sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: WindowNumbers,
    scale: float,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """The gradients of q, k and v into the tensors of `gradients`.

    `out` and `log_sums` are what the forward made.
    """
    problem, _alive = _problem(q, k, v, window, scale)
    out, d_out = (x if x.stride(-1) == 1 else x.contiguous() for x in (out, d_out))
    d_q, d_k, d_v = (address(g) for g in gradients)
    problem.backward(
        out=address(out),
        log_sums=log_sums.data_ptr(),
        d_out=address(d_out),
        d_q=d_q,
        d_k=d_k,
        d_v=d_v,
        threads=library.threads(),
    )


def _problem(
    q: Tensor, k: Tensor, v: Tensor, window: WindowNumbers, scale: float
) -> tuple[Any, list[Tensor]]:
    alive = [x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v)]
    dtype = dtype_number("q", q)
    problem = library.cpu().Attention(
        q=address(alive[0]),
        k=address(alive[1]),
        v=address(alive[2]),
        causal=_keys(tuple(window), dtype, library.cpu().instruction_set()),
        shape=(q.shape[0], q.shape[-2], q.shape[-1]),
        dtype=dtype,
        scale=scale,
    )
    return problem, alive


# A model has few grids and contexts, and each layer asks for its tables again.
@lru_cache(maxsize=64)
def _keys(window: WindowNumbers, dtype: int, instruction_set: str) -> Any:
    """What each block of queries sees; how large a block is depends on the instruction set."""
    return library.cpu().CausalKeys(window=window, dtype=dtype)
