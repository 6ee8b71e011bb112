"""Rows that predict targets, and an operation on them held against its reference in float64."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """What an operation is given before its own options."""

    hidden: Tensor  # [G, M, E]
    weight: Tensor
    bias: Tensor | None
    target: Tensor  # [G, M]
    keep: Tensor | None
    ignore_index: int = -100

    @classmethod
    def of(
        cls,
        target: tuple[str, torch.dtype],
        rows: tuple[int, int],
        width: int,
        outputs: int,
        levels: int | None = None,
        kind: torch.dtype = torch.int64,
    ) -> "Problem":
        """With a bias; every row counts."""
        device, dtype = target
        torch.manual_seed(width + outputs)
        hidden, weight = torch.randn(*rows, width), 2 * torch.randn(outputs, width) / width**0.5
        levels = torch.randint(0, outputs if levels is None else levels, rows).to(kind)
        floats = (x.to(device, dtype) for x in (hidden, weight, torch.randn(outputs)))
        return cls(*floats, levels.to(device), None)

    def shifted(self, by: int) -> "Problem":
        keep = None if self.keep is None else self.keep[:, by:]
        return replace(self, hidden=self.hidden[:, :-by], target=self.target[:, by:], keep=keep)

    @property
    def counts(self) -> Tensor:
        counts = self.target.long() != self.ignore_index
        return counts if self.keep is None else counts & self.keep

    def some_count(self) -> "Problem":
        """Kept ones that are not ignored; the others hold NaN from now on."""
        torch.manual_seed(1)
        keep = torch.rand(self.target.shape, device=self.target.device) > 0.4
        problem = replace(self, keep=keep, ignore_index=int(self.target.flatten()[0]))
        problem.hidden[~problem.counts] = torch.nan
        return problem


def outcome(
    function: Callable[..., Tensor],
    problem: Problem,
    dtype: torch.dtype,
    weights: Tensor | None,
    times: float = 3,
) -> dict[str, Tensor]:
    """The sum, or with weights the losses of rows; gradients of ``times`` the sum, or of the weighted."""
    given = {"hidden": problem.hidden, "weight": problem.weight, "bias": problem.bias}
    leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in given.items() if x is not None}
    out = function(*(leaves.get(name) for name in given), problem.target, problem.keep, problem.ignore_index)
    total = out.sum() * times if weights is None else (out * weights.to(out.dtype)).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    made = {"loss": (out.sum() if weights is None else out).detach()}
    return made | dict(zip(leaves, gradients, strict=True))


def compare(
    error_bound, op: Callable, reference: Callable, problem: Problem, *options, times: float = 3
) -> None:
    """``op(..., *options, factor)`` against ``reference(..., *options)``: both ways, and every gradient."""
    for weights in (None, torch.randn(problem.target.shape).to(problem.hidden.device)):
        factor = 0.7 if weights is None else None

        def defined(*given, factor=factor) -> Tensor:
            losses = reference(*given, *options)
            return losses if factor is None else losses.sum() * factor

        def made(*given, factor=factor) -> Tensor:
            return op(*given, *options, factor)

        exact, plain = (
            outcome(defined, problem, dtype, weights, times)
            for dtype in (torch.float64, problem.hidden.dtype)
        )
        ours = outcome(made, problem, problem.hidden.dtype, weights, times)
        for name, value in ours.items():
            error_bound(value, exact[name], plain[name], f"{name}, {'sum' if weights is None else 'rows'}")
        assert (ours["hidden"][~problem.counts] == 0).all(), "a row that does not count has a gradient"
