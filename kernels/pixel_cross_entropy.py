"""Pixel cross-entropy: projection to the levels of a pixel, softmax and negative log-likelihood in one.

    z = hidden weight^T + bias,  log Z = log sum_v exp z[v]
    loss = -sum_v t[v] (z[v] - log Z) + z_loss (log Z)^2

hidden is ``[G, M, E]``, weight ``[V, E]``, targets are integers ``[G, M]``. t is one at the target or a
Gaussian around it, then smoothed: see ``imagen_fast.ops.functional.pixel_cross_entropy`` for the options and
their sources. Logits, statistics and losses are fp32, sums of losses float64. Rows that do not count are
never read.

The sum of the losses makes its own gradients in the same pass over ``hidden`` when they will be asked for,
those of the mean where that is wanted (but for float16); the backward only multiplies them by the gradient
that comes in. The losses of rows save log Z (4 bytes a row), and their backward makes the logits again. The
weight's gradient is added up in one order: bit for bit the same each time.

- Up to 256 levels with E up to 64, or 128 with E up to 128 (half types): the weight, and its gradient, stay
  on the chip, and nothing is in memory but what goes in and comes out. A pass with gradients moves 2 R E
  values for R rows, makes 6 R V E operations and R V exponentials, and leaves a partial gradient of the
  weight for each program.
- Wider, and in fp32: chunks of rows through cuBLAS (``predicted_chunks.py``), with as many operations,
  exponentials, and at most 32 MB between the products.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import predicted_ops
from imagen_fast.kernels.pixel_cross_entropy_launch import (
    MOST_LEVELS,
    fused,
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
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    sigma: float = 0.0,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    if reason := unserved(hidden, weight, bias, target, keep):
        return reason
    if len(weight) > MOST_LEVELS:
        return f"there are {len(weight)} levels: up to {MOST_LEVELS} are served"
    return None


def pixel_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    sigma: float,
    factor: float | Tensor | None,
) -> Tensor:
    """`factor` times the sum of the losses, float32; where it is None, the loss of each row [G, M]."""
    options = (label_smoothing, z_loss, sigma)
    return _likelihood(hidden, weight, bias, target, keep, ignore_index, options, factor)


_likelihood = predicted_ops.register(
    "pixel_cross_entropy", predicted_ops.Likelihood(run_sum, run_rows, run_rows_backward, saves=fused)
)


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of the launchers: MAE's pixels and iGPT's colours, plain and with all options."""

    def meta(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def case(levels: int, width: int, dtype: torch.dtype, length: int, everything: bool) -> Rows:
        """Everything: a bias, rows that do not count, and rows that predict the next."""
        hidden = meta(256, length, width, dtype=dtype)
        target = meta(256, length, dtype=torch.int64 if everything else torch.uint8)
        keep = meta(256, length, dtype=torch.bool) if everything else None
        bias = meta(levels, dtype=dtype) if everything else None
        if everything:
            hidden, target, keep = hidden[:, :-1], target[:, 1:], keep[:, 1:]
        return rows_of(hidden, meta(levels, width, dtype=dtype), bias, target, keep, -100)

    def summed(rows: Rows, options: tuple[float, ...], trained: bool) -> None:
        factor = meta(dtype=torch.float32) if trained else None
        run_sum(rows, options, asked(rows, trained, trained), factor)

    def by_row(rows: Rows, options: tuple[float, ...]) -> None:
        losses, log_z = run_rows(rows, options)
        run_rows_backward(losses, log_z, rows, options, asked(rows, True, True))

    off, on = (0.0, 0.0, 0.0), (0.1, 1e-4, 2.0)
    sizes = (
        (256, 64, torch.bfloat16, 147 * 768),
        (128, 128, torch.bfloat16, 1024),
        (512, 512, torch.bfloat16, 1024),
        (256, 64, torch.float32, 1024),
    )
    for levels, width, dtype, length in sizes:
        name = f"V={levels} E={width} {str(dtype).removeprefix('torch.')}"
        plain, full = (case(levels, width, dtype, length, everything) for everything in (False, True))
        if levels != 256 or dtype == torch.float32:
            yield f"{name} all options", partial(summed, full, on, True)
            continue
        yield name, partial(summed, plain, off, True)
        yield f"{name} forward", partial(summed, plain, off, False)
        yield f"{name} by row", partial(by_row, plain, off)
        yield f"{name} all options", partial(summed, full, on, True)
        yield f"{name} by row, all options", partial(by_row, full, on)
    yield "V=512 E=512 bfloat16", partial(summed, case(512, 512, torch.bfloat16, 1024, False), off, True)
