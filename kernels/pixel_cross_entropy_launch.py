"""Launchers of pixel cross-entropy: which kernel a call takes, in which shapes, with which arguments.

Block shapes are chosen from what the assembler reports (``python -m imagen_fast.kernels.aot``): the most rows
that spill on no chip they serve, whatever the options. No stopwatch has chosen among them yet.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.predicted_chunks import in_chunks
from imagen_fast.kernels.predicted_launch import Gradients, Rows, in_tiles, side

if launch.INSTALLED:
    from imagen_fast.kernels.pixel_cross_entropy_fused import cross_entropy_fused
    from imagen_fast.kernels.pixel_cross_entropy_rows import cross_entropy_rows

MOST_LEVELS = 8192  # of which a row is held in registers
_KEPT = 256 * 64  # entries of a weight whose gradient leaves eight warps the registers for a tile of logits
_WIDEST = 128  # 256 columns of 64 levels are as many entries, but spill on Ampere
_LOGITS = 4096  # of a tile between the products of a chunk: 32 a thread
_LEAST_SIDE = 64  # rows of a Hopper matrix instruction; levels and columns take turns to be them
_LOG2_E = 1.4426950408889634


def _optional(options: Sequence[float], levels: int, device: torch.device) -> dict[str, Any]:
    """Label smoothing, z-loss and sigma, None where off; the Gaussian's normaliser is a table of levels."""
    label_smoothing, z_loss, sigma = options
    sharpness = norms = None
    if sigma > 0:
        sharpness = _LOG2_E / max(2 * sigma**2, 1e-30)
        level = torch.arange(levels, device=device, dtype=torch.float32)
        norms = 1 / torch.exp2((level[:, None] - level) ** 2 * -sharpness).sum(1)
    return {
        "smoothing": label_smoothing if label_smoothing > 0 else None,
        "z_loss": z_loss if z_loss > 0 else None,
        "sharpness": sharpness,
        "norms": norms,
    }


def fused(weight: Tensor) -> bool:
    """Whether the weight stays on the chip. In fp32 no matrix unit would multiply it there."""
    levels, width = (side(size, _LEAST_SIDE) for size in weight.shape)
    return weight.dtype != torch.float32 and width <= _WIDEST and levels * width <= _KEPT


def run_sum(rows: Rows, options: Sequence[float], made: Gradients, d_sum: Tensor | None) -> Tensor:
    """The sum of the losses, a float64 scalar; in ``made`` its gradients, times ``d_sum`` where given."""
    run = _fused if fused(rows.weight) else _chunked
    return run(rows, options, made, summed=True, d_sum=d_sum)


def run_rows(rows: Rows, options: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The losses [G, M], and log Z if the weight stays on the chip: chunks make their logits again."""
    losses = torch.empty(rows.target.shape, dtype=torch.float32, device=rows.hidden.device)
    none = Gradients(None, None, None)
    if not fused(rows.weight):
        _chunked(rows, options, none, losses=losses)
        return losses, losses.new_empty(0)
    log_z = torch.empty_like(losses)
    _fused(rows, options, none, losses=losses, log_z_made=log_z)
    return losses, log_z


def run_rows_backward(
    d_losses: Tensor, log_z: Tensor, rows: Rows, options: Sequence[float], made: Gradients
) -> None:
    """The gradients of the losses, weighted by ``d_losses`` [G, M], in ``made``."""
    if not fused(rows.weight):
        _chunked(rows, options, made, d_losses=d_losses)
    else:
        _fused(rows, options, made, d_losses=d_losses, log_z_saved=log_z)


def _fused(
    rows: Rows, options: Sequence[float], made: Gradients, summed: bool = False, **given: Tensor | None
) -> Tensor:
    """32 rows on Hopper and 16 elsewhere fill 8 warps; without gradients two programs share a processor."""
    levels, width = rows.weight.shape
    own: dict[str, Any] = _optional(options, levels, rows.hidden.device)
    names = ("losses", "log_z_made", "log_z_saved", "d_losses", "d_sum")
    own |= {name: given.get(name) for name in names}
    own |= {"V": levels, "BLOCK_V": side(levels, _LEAST_SIDE), "BLOCK_E": side(width, _LEAST_SIDE)}
    block = 32 if launch.capability(rows.hidden.device) == 90 else 16
    return in_tiles(
        cross_entropy_fused, rows, made, summed, own, block, resident=1 if made.any else 2, warps=8
    )


def _chunked(
    rows: Rows, options: Sequence[float], made: Gradients, summed: bool = False, **given: Tensor | None
) -> Tensor:
    levels = len(rows.weight)
    own: dict[str, Any] = _optional(options, levels, rows.hidden.device)
    own |= {name: given.get(name) for name in ("losses", "d_losses", "d_sum")}
    own |= {"V": levels, "BLOCK_V": side(levels, 32)}
    block = max(1, min(32, _LOGITS // side(levels, 32)))
    return in_chunks(cross_entropy_rows, rows, made, summed, own, block)
