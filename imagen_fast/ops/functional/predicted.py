"""What the two likelihoods share: rows that predict targets, which of them count, reduction and dispatch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference
from imagen_fast.ops.cpu.likelihood import refusal as cpu_refusal
from imagen_fast.ops.cpu.pixel_cross_entropy import pixel_cross_entropy
from imagen_fast.ops.cpu.pixel_logistic_mixture import pixel_logistic_mixture
from imagen_fast.ops.dispatch import choose
from imagen_fast.ops.functional.checks import FLOATS, autocast
from imagen_fast.ops.reference import counting, has_value

_CPU = {"pixel_cross_entropy": pixel_cross_entropy, "pixel_logistic_mixture": pixel_logistic_mixture}


class Predicted(NamedTuple):
    """Views of what was given, in groups: all dimensions but the last two of `hidden` are one."""

    hidden: Tensor  # [G, M, E]
    weight: Tensor
    bias: Tensor | None
    target: Tensor  # [G, M]
    keep: Tensor | None  # [G, M]
    factor: float | Tensor | None  # of the sum of the losses; None where each row's is wanted
    shape: torch.Size  # of the targets that are predicted


def predicted_rows(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    shift: int,
    ignore_index: int,
    levels: int,
    reduction: str,
) -> Predicted:
    """Check the tensors, in the type of autocast, and lay out which row of `hidden` predicts which target.

    Raises:
        InvalidInput: they do not fit together.
    """
    if bias is None:
        hidden, weight = autocast(hidden, weight)
    else:
        hidden, weight, bias = autocast(hidden, weight, bias)
    if reduction not in ("none", "mean", "sum"):
        raise InvalidInput(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    if hidden.dim() < 1 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1]:
        raise InvalidInput(
            "hidden must be [..., E] and weight [V, E] with one E, not "
            f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InvalidInput(f"bias must be [{len(weight)}], one a row of weight, not {tuple(bias.shape)}")
    kinds = {x.dtype for x in (hidden, weight, bias) if x is not None}
    if len(kinds) != 1 or hidden.dtype not in FLOATS:
        names = ", ".join(sorted(str(kind) for kind in kinds))
        raise InvalidInput(f"hidden, weight and bias must be of one floating-point type, not {names}")
    if target.is_floating_point() or target.dtype == torch.bool:
        raise InvalidInput(f"target must be integer, not {target.dtype}")
    if target.shape != hidden.shape[:-1]:
        raise InvalidInput(
            f"target must be {tuple(hidden.shape[:-1])}, one a row of hidden, not {tuple(target.shape)}"
        )
    if keep is not None and (keep.dtype != torch.bool or keep.shape != target.shape):
        raise InvalidInput(f"keep must be bool {tuple(target.shape)}, not {keep.dtype} {tuple(keep.shape)}")
    if len({x.device for x in (hidden, weight, bias, target, keep) if x is not None}) != 1:
        raise InvalidInput("hidden, weight, bias, target and keep must be on one device")
    if hidden.dim() == 1:
        hidden, target, keep = hidden[None], target[None], None if keep is None else keep[None]
        shape = torch.Size()
        if shift:
            raise InvalidInput("shift needs a sequence: hidden [..., N, E]")
    else:
        length = target.shape[-1]
        if not 0 <= shift <= length:
            raise InvalidInput(f"shift must be 0 to the {length} elements of the sequence, not {shift}")
        hidden, target = hidden[..., : length - shift, :], target[..., shift:]
        keep = None if keep is None else keep[..., shift:]
        shape = target.shape

    def grouped(x: Tensor, last: int) -> Tensor:
        return x.flatten(0, -last - 2) if x.dim() > last + 1 else x[None]

    hidden, target = grouped(hidden, 1), grouped(target, 0)
    keep = None if keep is None else grouped(keep, 0)
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):  # of which PyTorch compares nothing
        target = target.long()
    _check_range(target, keep, ignore_index, levels)
    factor = _factor(hidden, target, keep, ignore_index, reduction)
    return Predicted(hidden, weight, bias, target, keep, factor, shape)


def _check_range(target: Tensor, keep: Tensor | None, ignore_index: int, levels: int) -> None:
    if target.device.type != "cpu" or torch.compiler.is_compiling() or not target.numel():
        return
    low, high = (int(x) for x in target.aminmax())
    if low >= 0 and high < levels:
        return
    wrong = ((target < 0) | (target >= levels)) & counting(target, keep, ignore_index)
    if bool(wrong.any()):
        raise InvalidInput(f"targets must be 0 to {levels - 1}, not {int(target[wrong][0])}")


def _factor(
    hidden: Tensor, target: Tensor, keep: Tensor | None, ignore_index: int, reduction: str
) -> float | Tensor | None:
    if reduction == "none":
        return None
    if reduction == "sum":
        return 1.0
    if keep is None and not has_value(target.dtype, ignore_index):
        return 1.0 / max(target.numel(), 1)  # all of them count
    count = counting(target, keep, ignore_index).sum().clamp(min=1)
    return count.to(torch.promote_types(hidden.dtype, torch.float32)).reciprocal()


def likelihood(op: str, rows: Predicted, options: tuple[float, ...], backend: str | None) -> Tensor:
    """The loss from the back-end that serves: each of them has the operation by the name of `op`."""
    tensors = (rows.hidden, rows.weight, rows.bias, rows.target, rows.keep)

    def refusal(name: str) -> str | None:
        if name == "triton":
            return _kernel(op).supports(*tensors, *options)
        return cpu_refusal(*tensors) if name == "cpu" else None

    chosen = choose(op, rows.hidden.device, refusal, backend)
    if chosen == "reference":
        losses = getattr(reference, op)(*tensors, *options)
        loss = losses if rows.factor is None else losses.sum() * rows.factor
    else:
        serve = _CPU[op] if chosen == "cpu" else getattr(_kernel(op), op)
        loss = serve(*tensors, *options, rows.factor)
    return loss.view(rows.shape) if rows.factor is None else loss


def _kernel(op: str) -> Any:
    from imagen_fast.kernels import pixel_cross_entropy, pixel_logistic_mixture

    return pixel_cross_entropy if op == "pixel_cross_entropy" else pixel_logistic_mixture
