"""Discretised mixture of logistics: projection to its numbers and negative log-likelihood in one.

    share, mean, log_scale = hidden weight^T + bias, K of each
    loss = -log sum_k softmax(share)[k] (S((x + h - mean[k]) / scale[k]) - S((x - h - mean[k]) / scale[k]))

with x = 2 target / (V - 1) - 1 and h = 1 / (V - 1) (Salimans et al. 2017, arXiv:1701.05517, section 2.1).
hidden is ``[G, M, E]``, weight ``[3 K, E]``, targets are integers ``[G, M]``. Numbers and losses are fp32,
sums of losses float64. Rows that do not count are never read. The sum makes its gradients in the same pass,
the losses of rows are made again backward; the weight's gradient is added up in one order.

- Up to 16 logistics and 64 columns (half types): the weight, and its gradient, stay on the chip. A pass with
  gradients moves 2 R E values for R rows, makes 18 R K E operations and 6 R K exponentials.
- Wider, and in fp32: chunks of rows through cuBLAS (``predicted_chunks.py``).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import predicted_ops
from imagen_fast.kernels.pixel_logistic_mixture_launch import (
    MOST_LOGISTICS,
    run_rows,
    run_rows_backward,
    run_sum,
)
from imagen_fast.kernels.predicted_launch import Rows, asked, rows_of, unserved


def supports(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int = -100,
    levels: int = 256,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    if reason := unserved(hidden, weight, bias, target, keep):
        return reason
    if len(weight) % 3 or len(weight) > 3 * MOST_LOGISTICS:
        return f"weight has {len(weight)} rows: 3 each of up to {MOST_LOGISTICS} logistics are served"
    return None


def pixel_logistic_mixture(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    levels: int,
    factor: float | Tensor | None,
) -> Tensor:
    """`factor` times the sum of the losses, float32; where it is None, the loss of each row [G, M]."""
    return _likelihood(hidden, weight, bias, target, keep, ignore_index, (float(levels),), factor)


_likelihood = predicted_ops.register(
    "pixel_logistic_mixture",
    predicted_ops.Likelihood(run_sum, run_rows, run_rows_backward, saves=lambda _: False),
)


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of the launchers: ten logistics, from the chip and in chunks."""

    def meta(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def both(rows: Rows) -> None:
        run_sum(rows, (256.0,), asked(rows, True, True), meta(dtype=torch.float32))
        losses, saved = run_rows(rows, (256.0,))
        run_rows_backward(losses, saved, rows, (256.0,), asked(rows, True, True))

    for width, dtype in ((64, torch.bfloat16), (512, torch.bfloat16)):
        hidden, weight = meta(256, 1024, width, dtype=dtype), meta(30, width, dtype=dtype)
        target, keep = meta(256, 1024, dtype=torch.int64), meta(256, 1024, dtype=torch.bool)
        rows = rows_of(hidden[:, :-1], weight, meta(30, dtype=dtype), target[:, 1:], keep[:, 1:], -100)
        yield f"K=10 E={width} {str(dtype).removeprefix('torch.')}", partial(both, rows)
