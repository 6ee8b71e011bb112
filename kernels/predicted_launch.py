"""What the kernels of both likelihoods are given: rows, and room for gradients; and why they refuse."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch

if launch.INSTALLED:
    from imagen_fast.kernels.predicted_rows import scale_gradient

TYPES = (torch.float16, torch.bfloat16, torch.float32)
LEVELS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_SCALED = 4096  # values a program


@dataclass(frozen=True)
class Rows:
    """What was handed over, as kernels take it."""

    hidden: Tensor  # [G, M, E]
    weight: Tensor  # [V, E]
    bias: Tensor | None
    target: Tensor  # [G, M]
    keep: Tensor | None
    ignored: int | None  # None where no target can have that value

    @property
    def number(self) -> int:
        return self.target.numel()

    def arguments(self) -> dict[str, Any]:
        """Tensors and steps to a row. With one step in every tensor there are no groups to divide by."""
        length = self.target.shape[1]
        tensors = {"hidden": self.hidden, "target": self.target, "keep": self.keep}
        steps = {name: None if x is None else step(x) for name, x in tensors.items()}
        flat = all(steps[name] is not None or x is None for name, x in tensors.items())
        given: dict[str, Any] = {"rows": self.number, "length": self.number if flat else length, "FLAT": flat}
        for name, x in tensors.items():
            group, row = (0, 0) if x is None else (0, steps[name]) if flat else x.stride()[:2]
            given |= {name: x, f"{name}_group": group, f"{name}_row": row}
        return given | {"ignored": self.ignored, "E": int(self.hidden.shape[2])}


def rows_of(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
) -> Rows:
    kind = torch.iinfo(target.dtype)
    ignored = ignore_index if kind.min <= ignore_index <= kind.max else None
    bias = None if bias is None else bias.contiguous()
    return Rows(hidden, weight.contiguous(), bias, target, keep, ignored)


def step(x: Tensor) -> int | None:
    """The stride from any row to the next, or None where groups break it."""
    groups, length = x.shape[:2]
    if groups <= 1 or length <= 1:
        return x.stride(1 if groups <= 1 else 0)
    return x.stride(1) if x.stride(0) == length * x.stride(1) else None


def unserved(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, keep: Tensor | None
) -> str | None:
    """Why no kernel of a likelihood can serve these tensors, or None. Reads shapes only, never values."""
    if reason := launch.unavailable(hidden, weight, bias, target, keep):
        return reason
    kinds = {x.dtype for x in (hidden, weight, bias) if x is not None}
    if len(kinds) != 1 or hidden.dtype not in TYPES:
        names = ", ".join(sorted(str(kind) for kind in kinds))
        return f"hidden, weight and bias are {names}: one of float16, bfloat16, float32 is served"
    if hidden.ndim != 3 or weight.ndim != 2 or hidden.shape[2] != weight.shape[1] or not weight.numel():
        return (
            f"hidden has shape {list(hidden.shape)} and weight {list(weight.shape)}: [G, M, E] and a weight "
            "of as many columns, neither of them none, are served"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        return f"bias has shape {list(bias.shape)}: [{weight.shape[0]}] is served"
    if hidden.shape[2] > 1 and hidden.stride(2) != 1:
        return f"the last dimension of hidden has stride {hidden.stride(2)}: 1 is served"
    if target.dtype not in LEVELS or target.shape != hidden.shape[:2]:
        return f"target is {target.dtype} {list(target.shape)}: integers {list(hidden.shape[:2])} are served"
    if keep is not None and (keep.dtype != torch.bool or keep.shape != target.shape):
        return f"keep is {keep.dtype} {list(keep.shape)}: bool {list(target.shape)} is served"
    return None


@dataclass
class Gradients:
    """Of the rows' vectors in their type, of the weight and the bias in fp32; None where nobody asks."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @property
    def any(self) -> bool:
        return self.hidden is not None or self.weight is not None

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An op returns tensors: empty ones for None."""
        d_hidden, d_weight, d_bias = (
            like.new_empty(0) if x is None else x for x in (self.hidden, self.weight, self.bias)
        )
        return d_hidden, d_weight, d_bias


def asked(rows: Rows, of_hidden: bool, of_weight: bool) -> Gradients:
    """Room for the gradients that are asked for. That of the bias comes with the weight's."""
    hidden, weight = rows.hidden, rows.weight
    return Gradients(
        torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device) if of_hidden else None,
        zeros(weight.shape, weight) if of_weight else None,
        zeros(weight.shape[:1], weight) if of_weight and rows.bias is not None else None,
    )


def zeros(shape: torch.Size, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=like.device)


def side(size: int, least: int) -> int:
    """Of the tile that holds ``size``."""
    return max(least, 1 << (size - 1).bit_length())


def slots(rows: int, block: int, device: torch.device, resident: int) -> int:
    """Programs that share the tiles of rows: as many as the device holds at once."""
    return min(-(-rows // block), launch.processors(device) * resident)


def in_tiles(
    kernel: Any,
    rows: Rows,
    made: Gradients,
    summed: bool,
    own: dict[str, Any],
    block: int,
    resident: int,
    warps: int,
) -> Tensor:
    """The sum of the losses in float64, and the gradients in ``made``, of a kernel that keeps the weight."""
    device = rows.hidden.device
    programs = slots(rows.number, block, device, resident)
    f32 = {"dtype": torch.float32, "device": device}
    d_weight = None if made.weight is None else torch.empty((programs, *rows.weight.shape), **f32)
    d_bias = None if made.bias is None else torch.empty((programs, len(rows.weight)), **f32)
    sums = torch.empty((programs,), dtype=torch.float64, device=device) if summed else None
    arguments = rows.arguments() | own | {"weight": rows.weight, "bias": rows.bias, "BLOCK_M": block}
    arguments |= {"sums": sums, "d_hidden": made.hidden, "d_weight": d_weight, "d_bias": d_bias}
    launch.launch(kernel, programs, arguments, num_warps=warps, num_stages=1)
    if d_weight is not None:
        made.weight = d_weight.sum(0)
    if d_bias is not None:
        made.bias = d_bias.sum(0)
    return zeros(torch.Size(), rows.hidden, torch.float64) if sums is None else sums.sum()


def _run_scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    gradient = gradient.contiguous()
    scaled = torch.empty_like(gradient)
    size = gradient.numel()
    arguments = {
        "gradient": gradient,
        "scaled": scaled,
        "factor": factor.float(),
        "size": size,
        "BLOCK": _SCALED,
    }
    launch.launch(scale_gradient, -(-size // _SCALED), arguments, num_warps=8, num_stages=1)
    return scaled


def _fake_scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape)


scaled_gradient = launch.register("predicted_gradient_scaled_triton", _fake_scaled)(_run_scaled)
