"""Rows too wide for a kernel that keeps the weight on the chip: products through cuBLAS, in chunks of rows.

A chunk's logits are one product, in fp32 whatever its factors are; a kernel turns them into losses, and, in
the same memory, into their gradient in the factors' type; two more products make the gradients of ``hidden``
and of the weight. A chunk has so many rows that all of this stays in the L2 and below 32 MB, however many
rows there are.

Rows that do not count are copied as zeros first: their gradient is zero, but in a product 0 * NaN is NaN.
"""

from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.predicted_launch import Gradients, Rows, slots, step, zeros

if launch.INSTALLED:
    from imagen_fast.kernels.predicted_rows import gather_counted

CHUNK = (
    24 * 2**20
)  # bytes: half of Hopper's L2, so that rows of hidden and of its gradient find room in it too
_ROWS, _COLUMNS = 32, 128  # of a tile that is copied
_RESIDENT = 4  # programs a multiprocessor holds, 4 warps each


def in_chunks(
    kernel: Any, rows: Rows, made: Gradients, summed: bool, own: dict[str, Any], block: int
) -> Tensor:
    """The sum of the losses in float64, and the gradients in ``made``; ``kernel`` is that of a chunk."""
    levels, width = rows.weight.shape
    hidden, at = rows.hidden, step(rows.hidden)
    copied = rows.keep is not None or rows.ignored is not None or at is None
    pitch = -(-levels // 8) * 8  # a row starts at a multiple of 16 bytes in either type, as tensor cores want
    room = 4 * pitch + (width * hidden.element_size() if copied else 0)
    most = min(CHUNK // room, rows.number)
    most = max(-(-most // _ROWS), 1) * _ROWS
    memory = torch.empty((most, pitch), dtype=torch.float32, device=hidden.device)
    copy = torch.empty((most, width), dtype=hidden.dtype, device=hidden.device) if copied else None
    total = zeros(torch.Size(), hidden, torch.float64)
    shared = rows.arguments() | own | {"bias": rows.bias, "BLOCK_M": block, "pitch": pitch}
    for name in ("hidden", "hidden_group", "hidden_row", "rows", "E"):
        del shared[name]
    for first in range(0, rows.number, most):
        count = min(most, rows.number - first)
        if copy is None:
            x = hidden.as_strided((count, width), (at, 1), hidden.storage_offset() + first * at)
        else:
            x = _counted(rows, copy, first, count)
        logits = memory[:count, :levels]
        gradient = memory.view(hidden.dtype)[:count, :levels] if made.any else None
        _product(x, rows.weight.t(), logits)

        programs = slots(count, block, hidden.device, _RESIDENT)
        sums = torch.empty((programs,), dtype=torch.float64, device=hidden.device) if summed else None
        d_bias = memory.new_empty((programs, levels)) if made.bias is not None else None
        arguments = shared | {"logits": logits, "gradient": gradient, "sums": sums, "d_bias": d_bias}
        arguments |= {"first": first, "end": first + count}
        arguments |= {"gradient_pitch": None if gradient is None else gradient.stride(0)}
        launch.launch(kernel, programs, arguments, num_warps=4, num_stages=1)

        if sums is not None:
            total += sums.sum()
        if made.hidden is not None:
            torch.mm(gradient, rows.weight, out=made.hidden.view(-1, width)[first : first + count])
        if made.weight is not None:
            made.weight += _product(gradient.t(), x)
        if made.bias is not None:
            made.bias += d_bias.sum(0)
    return total


def _counted(rows: Rows, copy: Tensor, first: int, count: int) -> Tensor:
    """Those rows, one after another; zeros where they do not count."""
    across = -(-copy.shape[1] // _COLUMNS)
    arguments = rows.arguments() | {"copy": copy, "first": first, "end": first + count, "across": across}
    del arguments["rows"]
    arguments |= {"BLOCK_M": _ROWS, "BLOCK_E": _COLUMNS}
    launch.launch(gather_counted, -(-count // _ROWS) * across, arguments, num_warps=4, num_stages=1)
    return copy[:count]


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """In fp32, with half factors too: cuBLAS can do that, and only cuBLAS."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return torch.mm(left.float(), right.float(), out=out)
