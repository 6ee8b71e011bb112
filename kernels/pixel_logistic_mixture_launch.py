"""Launchers of the logistic mixture: which kernel a call takes, in which shapes, with which arguments.

Block shapes are chosen from what the assembler reports, as those of pixel cross-entropy.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.predicted_chunks import in_chunks
from imagen_fast.kernels.predicted_launch import Gradients, Rows, in_tiles, side

if launch.INSTALLED:
    from imagen_fast.kernels.pixel_logistic_mixture_fused import logistic_mixture_fused
    from imagen_fast.kernels.pixel_logistic_mixture_rows import logistic_mixture_rows

MOST_LOGISTICS = 1024  # of which a row is held in registers
LEAST_LOG_SCALE = -7.0  # that of the reference
_KEPT, _WIDEST = 16, 64  # logistics and columns of a weight that stays on the chip; 128 columns spill
_LOGISTICS = 512  # of a tile between the products of a chunk


def fused(weight: Tensor) -> bool:
    """Whether the weight stays on the chip. In fp32 no matrix unit would multiply it there."""
    return weight.dtype != torch.float32 and len(weight) <= 3 * _KEPT and weight.shape[1] <= _WIDEST


def run_sum(rows: Rows, options: Sequence[float], made: Gradients, d_sum: Tensor | None) -> Tensor:
    """The sum of the losses, a float64 scalar; in ``made`` its gradients, times ``d_sum`` where given."""
    return _run(rows, options, made, summed=True, d_sum=d_sum)


def run_rows(rows: Rows, options: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The losses [G, M], and nothing that would be saved."""
    losses = torch.empty(rows.target.shape, dtype=torch.float32, device=rows.hidden.device)
    _run(rows, options, Gradients(None, None, None), losses=losses)
    return losses, losses.new_empty(0)


def run_rows_backward(
    d_losses: Tensor, saved: Tensor, rows: Rows, options: Sequence[float], made: Gradients
) -> None:
    """The gradients of the losses, weighted by ``d_losses`` [G, M], in ``made``."""
    _run(rows, options, made, d_losses=d_losses)


def _run(
    rows: Rows, options: Sequence[float], made: Gradients, summed: bool = False, **given: Tensor | None
) -> Tensor:
    logistics = len(rows.weight) // 3
    own: dict[str, Any] = {name: given.get(name) for name in ("losses", "d_losses", "d_sum")}
    own |= {
        "K": logistics,
        "BLOCK_K": side(logistics, 16),
        "LEVELS": int(options[0]),
        "LEAST": LEAST_LOG_SCALE,
    }
    if not fused(rows.weight):
        block = max(1, min(32, _LOGISTICS // side(logistics, 16)))
        return in_chunks(logistic_mixture_rows, rows, made, summed, own, block)
    own["BLOCK_E"] = side(rows.weight.shape[1], 64)
    return in_tiles(logistic_mixture_fused, rows, made, summed, own, block=64, resident=2, warps=4)
