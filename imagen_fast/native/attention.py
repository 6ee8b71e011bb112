"""Attention among the listed rows of each image: see csrc/cpu/attention.h."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from imagen_fast.native.features import available
from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import DTYPES, dtype_number


class RowTable(Protocol):
    """The rows of each image that take part; `imagen_fast.ops.Rows` says what the tables mean."""

    @property
    def longest(self) -> int: ...
    @property
    def spans(self) -> Tensor | None: ...
    @property
    def index(self) -> Tensor | None: ...


def attention_pays(dtype: torch.dtype) -> bool:
    """Whether the kernels are built, take this type, and beat PyTorch's own on this processor.

    Measured with each instruction set, forward and backward, 16 to 2048 tokens, against
    `scaled_dot_product_attention` under the same set: float32 1.5 to 2.3 times with AVX-512, 1.0 to 1.3 with
    AVX2, 0.6 to 0.9 without; bfloat16 2.2 times and more with each.
    """
    if not available() or dtype not in DTYPES:
        return False
    return dtype != torch.float32 or cpu().instruction_set() != "portable"


def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: RowTable,
    keys: RowTable,
    scale: float,
    out: Tensor,
    log_sums: Tensor,
) -> None:
    """softmax(scale * q k^T) v into `out`; only listed rows are read or written.

    q and out are [B, M, H, D] or packed [T, H, D], k and v likewise, of any strides with a dense last
    dimension of even length; float32 or bfloat16. `out` holds zeros where a row is not listed or sees
    nothing. `log_sums` [B, H, queries.longest] float32 gets what the backward needs of each listed row: the
    base-2 logarithm of the sum of its exponentials.
    """
    problem, _alive = _problem(q, k, v, queries, keys, scale)
    problem.forward(out=address(out), log_sums=log_sums.data_ptr(), threads=threads())


def attention_backward(
    d_out: Tensor,
    out: Tensor,
    log_sums: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: RowTable,
    keys: RowTable,
    scale: float,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """The gradients of q, k and v into the tensors of `gradients`, which hold zeros as `out` did.

    `out` and `log_sums` are what the forward made.
    """
    problem, _alive = _problem(q, k, v, queries, keys, scale)
    out, d_out = (x if x.stride(-1) == 1 else x.contiguous() for x in (out, d_out))
    d_q, d_k, d_v = (address(g) for g in gradients)
    problem.backward(
        out=address(out),
        log_sums=log_sums.data_ptr(),
        d_out=address(d_out),
        d_q=d_q,
        d_k=d_k,
        d_v=d_v,
        threads=threads(),
    )


def _problem(
    q: Tensor, k: Tensor, v: Tensor, queries: RowTable, keys: RowTable, scale: float
) -> tuple[Any, list[Tensor]]:
    alive = [x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v)]
    images = len(q) if q.dim() == 4 else len(queries.spans) if queries.spans is not None else 0
    query_list, query_tables = _list(queries)
    key_list, key_tables = _list(keys)
    problem = cpu().Attention(
        q=address(alive[0]),
        k=address(alive[1]),
        v=address(alive[2]),
        queries=query_list,
        keys=key_list,
        shape=(images, q.shape[-2], q.shape[-1]),
        dtype=dtype_number("q", q),
        scale=scale,
    )
    return problem, alive + query_tables + key_tables


def address(x: Tensor) -> tuple[int, int, int, int]:
    batch = x.stride(0) if x.dim() == 4 else 0
    return x.data_ptr(), batch, x.stride(-3), x.stride(-2)


def _list(rows: RowTable) -> tuple[tuple[int, int, int, int], list[Tensor]]:
    alive = [x.to(torch.int32).contiguous() for x in (rows.spans, rows.index) if x is not None]
    spans = 0 if rows.spans is None else alive[0].data_ptr()
    if rows.index is None:
        return (spans, 0, 0, rows.longest), alive
    return (spans, alive[-1].data_ptr(), alive[-1].stride(0), rows.longest), alive
