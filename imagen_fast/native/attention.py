"""Attention among the listed rows of each image: see csrc/cpu/attention.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from imagen_fast.native.features import available
from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import DTYPES, dense, dtype_number


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


@dataclass(frozen=True)
class Attention:
    """softmax(scale * q k^T) v over the rows that take part, forward and backward.

    q and the outputs are [B, M, H, D] or packed [T, H, D], k and v likewise, of any strides with a dense last
    dimension of even length; float32 or bfloat16. Rows that do not take part are neither read nor written.
    """

    _problem: Any
    _alive: list[Tensor]  # what the native description points to

    def forward(self, out: Tensor, statistics: Tensor) -> None:
        """Into `out`, which holds zeros where a row does not take part or sees nothing.

        `statistics` [B, H, 2, rows] float32 gets what the backward needs of each row: the largest of its
        base-2 exponents, and one over the sum of all.
        """
        self._problem.forward(out=address(out), statistics=_float32(statistics), threads=threads())

    def backward(
        self, d_out: Tensor, out: Tensor, statistics: Tensor, gradients: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """The gradients of q, k and v into the tensors of `gradients`, which hold zeros as `out` did.

        `out` and `statistics` are what the forward made.
        """
        out, d_out = dense_rows(out, d_out)
        d_q, d_k, d_v = (address(g) for g in gradients)
        self._problem.backward(
            out=address(out),
            statistics=_float32(statistics),
            d_out=address(d_out),
            d_q=d_q,
            d_k=d_k,
            d_v=d_v,
            threads=threads(),
        )


def attention_among_rows(
    q: Tensor, k: Tensor, v: Tensor, queries: RowTable, keys: RowTable, scale: float
) -> Attention:
    """Listed queries attend to the listed keys of their image."""
    images = len(q) if q.dim() == 4 else len(queries.spans) if queries.spans is not None else 0
    query_list, query_tables = _list(queries)
    key_list, key_tables = _list(keys)
    return described(q, k, v, scale, images, query_tables + key_tables, queries=query_list, keys=key_list)


def described(
    q: Tensor, k: Tensor, v: Tensor, scale: float, images: int, alive: list[Tensor], **seen: Any
) -> Attention:
    """The native description, where `seen` says which keys a query sees, in tables that `alive` keeps."""
    q, k, v = dense_rows(q, k, v)
    problem = cpu().Attention(
        q=address(q),
        k=address(k),
        v=address(v),
        shape=(images, q.shape[-2], q.shape[-1]),
        dtype=dtype_number("q", q),
        scale=scale,
        **seen,
    )
    return Attention(problem, [q, k, v, *alive])


def dense_rows(*tensors: Tensor) -> list[Tensor]:
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


def _float32(statistics: Tensor) -> int:
    return dense("statistics", statistics, None, torch.float32)


def address(x: Tensor) -> tuple[int, int, int, int]:
    batch = x.stride(0) if x.dim() == 4 else 0
    return x.data_ptr(), batch, x.stride(-3), x.stride(-2)


def _list(rows: RowTable) -> tuple[tuple[int, int, int, int], list[Tensor]]:
    alive = [x.to(torch.int32).contiguous() for x in (rows.spans, rows.index) if x is not None]
    spans = 0 if rows.spans is None else alive[0].data_ptr()
    if rows.index is None:
        return (spans, 0, 0, rows.longest), alive
    return (spans, alive[-1].data_ptr(), alive[-1].stride(0), rows.longest), alive
