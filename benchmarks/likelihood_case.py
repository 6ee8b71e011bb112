"""A case of pixel cross-entropy: its tensors, and its exact answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD, SEED, TYPES
from imagen_fast.benchmarks.correctness import HALF, SAME, Answer, Verdict, bounded, errors, within
from imagen_fast.benchmarks.peers.linear_cross_entropy import Loss, full_logits

# Rows whose logits the exact answer holds at a time, in float64. Of d_hidden only the first and the last so
# many are compared; of the loss and of d_weight, all.
CHUNK_ROWS = 65536

_NAMES = ("loss", "d_weight", "d_hidden")


@dataclass(frozen=True)
class Case:
    """The mean loss of `rows` predictions, whoever computes it.

    Args:
        rows, width, levels: M, E, V.
        type: `bf16` or `fp32`.
        checked_rows: how many rows the answers are compared on.
    """

    rows: int
    width: int
    levels: int
    type: str
    device: torch.device
    checked_rows: int

    @cached_property
    def checked(self) -> Case:
        """The case of the rows that are checked."""
        return self if self.checked_rows == self.rows else replace(self, rows=self.checked_rows)

    @property
    def dtype(self) -> torch.dtype:
        return TYPES[self.type]

    @property
    def name(self) -> str:
        return f"pixel cross-entropy M{self.rows} E{self.width} V{self.levels} {self.type}"

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """hidden [M, E] and weight [V, E], of logits that vary as much as they do in a model; targets [M]."""
        draw = torch.Generator(self.device).manual_seed(SEED)
        like: dict[str, Any] = {"generator": draw, "device": self.device}
        hidden = torch.randn(self.rows, self.width, dtype=self.dtype, **like)
        weight = torch.randn(self.levels, self.width, dtype=self.dtype, **like) * self.width**-0.5
        return hidden, weight, torch.randint(self.levels, (self.rows,), **like)

    def call(self, loss: Loss, measured: str) -> Callable[[], tuple[Tensor, ...]]:
        """What is timed: gives the loss, and after a backward the gradients of the weight and of hidden."""
        hidden, weight, target = self.tensors()
        if measured == FORWARD:

            def forward() -> tuple[Tensor, ...]:
                with torch.no_grad():
                    return (loss(hidden, weight, target),)

            return forward
        hidden.requires_grad_()
        weight.requires_grad_()

        def both() -> tuple[Tensor, ...]:
            mean = loss(hidden, weight, target)
            return mean, *torch.autograd.grad(mean, (weight, hidden))

        return both

    @cached_property
    def exact(self) -> tuple[Tensor, ...]:
        return self._answer(torch.float64)

    @cached_property
    def plain(self) -> tuple[Tensor, ...]:
        """Full logits, in the case's own type."""
        return self._answer(self.dtype)

    def _answer(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        hidden, weight, target = self.tensors()
        weight = weight.to(dtype).requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=self.device)
        d_weight = torch.zeros_like(weight, dtype=wide)
        checked = []
        starts = range(0, self.rows, CHUNK_ROWS)
        for start in starts:
            some = slice(start, start + CHUNK_ROWS)
            rows = hidden[some].to(dtype).requires_grad_()
            part = full_logits(rows, weight, target[some]) * (len(rows) / self.rows)
            to_weight, to_rows = torch.autograd.grad(part, (weight, rows))
            total += part.detach()
            d_weight += to_weight
            if start in (starts[0], starts[-1]):
                checked.append(to_rows)
        return total, d_weight.to(dtype), torch.cat(checked)

    def _at_the_ends(self, answer: Sequence[Tensor]) -> dict[str, Tensor]:
        found = dict(zip(_NAMES, (x.detach() for x in answer), strict=False))
        if self.rows > CHUNK_ROWS and "d_hidden" in found:
            last = (self.rows - 1) // CHUNK_ROWS * CHUNK_ROWS
            found["d_hidden"] = torch.cat([found["d_hidden"][:CHUNK_ROWS], found["d_hidden"][last:]])
        return found

    def bound(self, answer: Sequence[Tensor]) -> Verdict:
        """Ours: each result as near to float64 as full logits in the same type are."""
        verdict = Verdict(True)
        exact, plain = (dict(zip(_NAMES, x, strict=True)) for x in (self.exact, self.plain))
        for name, found in self._at_the_ends(answer).items():
            verdict &= bounded(found, exact[name], plain[name], name)
        return verdict

    def plausible(self, answer: Sequence[Tensor]) -> Verdict:
        """A peer: in float32 equal but for the order of sums, in bf16 off by what that may cost at all."""
        found = self._at_the_ends(answer)
        truth = {name: x for name, x in zip(_NAMES, self.exact, strict=True) if name in found}
        given, exact = (
            Answer(float(part["loss"]), {n: x for n, x in part.items() if n != "loss"})
            for part in (found, truth)
        )
        what = f"{self.type} beside float64, the loss in {found['loss'].dtype}".replace("torch.", "")
        return within(errors(given, exact), SAME if self.dtype == torch.float32 else HALF, what)

    def facts(self, measured: str) -> dict[str, Any]:
        """Sizes, and the least that the case asks of memory, matrix units and exponentials."""
        sizes = (self.rows, self.width, self.levels)
        least = work.linear_cross_entropy(*sizes, self.dtype.itemsize, backward=measured == BOTH)
        return {
            "rows": self.rows,
            "width": self.width,
            "levels": self.levels,
            **work.stated(least, self.type),
        }
