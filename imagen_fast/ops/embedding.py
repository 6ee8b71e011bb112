"""Rows of a table, with a gradient that can be trusted in half precision on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.dispatch import transformed


def embedding(index: Tensor, table: Tensor) -> Tensor:
    """The rows of `table` [V, E] that `index` [...] names: [..., E].

    PyTorch's own, except for half types on the CPU: there it adds the gradients of a row in half precision,
    where those of the commonest values are lost in their sum. Ours are added in float32. Like `layer_norm` a
    detail of our layers, not one of the operations.
    """
    half = table.device.type == "cpu" and table.dtype in (torch.bfloat16, torch.float16)
    ours = half and not transformed()
    return _Embedding.apply(index, table) if ours else torch.nn.functional.embedding(index, table)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, index: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.dtype = table.shape, table.dtype
        return torch.nn.functional.embedding(index, table)

    @staticmethod
    def backward(ctx, d_rows: Tensor) -> tuple[None, Tensor]:
        (index,) = ctx.saved_tensors
        d_table = torch.zeros(ctx.shape)
        d_table.index_add_(0, index.flatten(), d_rows.reshape(-1, ctx.shape[1]).float())
        return None, d_table.to(ctx.dtype)
