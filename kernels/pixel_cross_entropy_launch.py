"""Launchers of pixel cross-entropy: which kernel a call takes, in which shapes, with which arguments.

Block shapes are chosen from what the assembler reports (``python -m imagen_fast.kernels.aot``): the most rows
that spill on no chip they serve, whatever the options. No stopwatch has chosen among them yet.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.predicted_chunks import Chunk, Sums, in_chunks
from imagen_fast.kernels.predicted_launch import Gradients, Rows, slots, zeros

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


def side(size: int, least: int) -> int:
    return max(least, 1 << (size - 1).bit_length())


def fused(weight: Tensor) -> bool:
    """Whether the weight stays on the chip. In fp32 no matrix unit would multiply it there."""
    levels, width = (side(size, _LEAST_SIDE) for size in weight.shape)
    return weight.dtype != torch.float32 and width <= _WIDEST and levels * width <= _KEPT


def run_sum(rows: Rows, options: Sequence[float], made: Gradients) -> Tensor:
    """The sum of the losses, a scalar, and its gradients in ``made``."""
    run = _fused if fused(rows.weight) else _chunked
    return run(rows, options, made, summed=True).float()


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
    rows: Rows, options: Sequence[float], made: Gradients, summed: bool = False, **given: Tensor
) -> Tensor:
    """32 rows on Hopper and 16 elsewhere fill 8 warps; without gradients two programs share a processor."""
    device, (levels, width) = rows.hidden.device, rows.weight.shape
    training = made.hidden is not None or made.weight is not None
    block = 32 if launch.capability(device) == 90 else 16
    programs = slots(rows.number, block, device, resident=1 if training else 2)
    f32 = {"dtype": torch.float32, "device": device}
    d_weight = None if made.weight is None else torch.empty((programs, levels, width), **f32)
    d_bias = None if made.bias is None else torch.empty((programs, levels), **f32)
    sums = torch.empty((programs,), dtype=torch.float64, device=device) if summed else None
    arguments = rows.arguments() | _optional(options, levels, device)
    arguments |= {name: given.get(name) for name in ("losses", "log_z_made", "log_z_saved", "d_losses")}
    arguments |= {"sums": sums, "d_hidden": made.hidden, "d_weight": d_weight, "d_bias": d_bias}
    arguments |= {"weight": rows.weight, "bias": rows.bias, "V": levels}
    arguments |= {"BLOCK_M": block, "BLOCK_V": side(levels, _LEAST_SIDE), "BLOCK_E": side(width, _LEAST_SIDE)}
    launch.launch(cross_entropy_fused, programs, arguments, num_warps=8, num_stages=1)
    if d_weight is not None:
        made.weight = d_weight.sum(0)
    if d_bias is not None:
        made.bias = d_bias.sum(0)
    return zeros(torch.Size(), rows.hidden, torch.float64) if sums is None else sums.sum()


def _chunked(
    rows: Rows, options: Sequence[float], made: Gradients, summed: bool = False, **given: Tensor
) -> Tensor:
    device, levels = rows.hidden.device, len(rows.weight)
    shared = rows.arguments() | _optional(options, levels, device)
    for name in ("hidden", "hidden_group", "hidden_row", "rows", "E"):
        del shared[name]
    block_v = side(levels, 32)
    block = max(1, min(32, _LOGITS // block_v))
    shared |= {name: given.get(name) for name in ("losses", "d_losses")}
    shared |= {"bias": rows.bias, "V": levels, "BLOCK_V": block_v, "BLOCK_M": block}

    def run(chunk: Chunk) -> Sums:
        programs = slots(chunk.count, block, device, resident=4)
        sums = torch.empty((programs,), dtype=torch.float64, device=device) if summed else None
        d_bias = None
        if made.bias is not None:
            d_bias = torch.empty((programs, levels), dtype=torch.float32, device=device)
        own = {"logits": chunk.logits, "gradient": chunk.gradient, "sums": sums, "d_bias": d_bias}
        own |= {"first": chunk.first, "end": chunk.first + chunk.count, "pitch": chunk.logits.stride(0)}
        own |= {"gradient_pitch": None if chunk.gradient is None else chunk.gradient.stride(0)}
        launch.launch(cross_entropy_rows, programs, shared | own, num_warps=4, num_stages=1)
        return Sums(sums, d_bias)

    return in_chunks(rows, made, run)
