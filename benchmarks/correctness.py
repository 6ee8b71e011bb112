"""When an implementation counts as correct: its answer beside a plainer one, to a stated bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """A loss and the gradients of the parameters, by name."""

    loss: float
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is correct, and the numbers that say so."""

    correct: bool
    evidence: dict[str, Any] = field(default_factory=dict)

    def __and__(self, other: Verdict) -> Verdict:
        return Verdict(self.correct and other.correct, self.evidence | other.evidence)


class Errors(NamedTuple):
    """Relative errors: of the loss, and the largest of any parameter's gradient (of its L2 norm)."""

    loss: float
    gradient: float


# In float32 two correct ways of computing differ by the order of their sums only.
SAME = Errors(loss=1e-6, gradient=1e-5)

# What bf16 autocast of a plain implementation may cost at all.
HALF = Errors(loss=2e-2, gradient=1e-1)

# Added to twice the plain implementation's own error, since a bf16 loss can be right by luck.
FLOOR = 1e-3

# How far a kernel may be from float64, beside plain PyTorch in the same precision: in maximum error, and in
# mean error for half types.
MAX_FACTOR = 2.0
MEAN_FACTOR = 1.1


def errors(answer: Answer, truth: Answer) -> Errors:
    """How far `answer` is from `truth`; infinite where a parameter has a gradient in only one of them."""
    loss = abs(answer.loss - truth.loss) / abs(truth.loss)
    if answer.gradients.keys() != truth.gradients.keys():
        return Errors(loss, math.inf)
    distances = [distance(answer.gradients[name], wanted) for name, wanted in truth.gradients.items()]
    # Not `max`: Python's passes over a NaN.
    return Errors(loss, float(torch.tensor(distances).max()) if distances else 0.0)


def within(found: Errors, bound: Errors, what: str) -> Verdict:
    """`what` names the comparison in the evidence. A NaN is within no bound."""
    correct = found.loss <= bound.loss and found.gradient <= bound.gradient
    evidence = {
        f"{what}, {name}": {"error": error, "bound": limit}
        for name, error, limit in zip(Errors._fields, found, bound, strict=True)
    }
    return Verdict(correct, evidence)


def half_bound(plain: Errors) -> Errors:
    """What ours may err in bf16: twice what a plain implementation errs under bf16 autocast, plus a floor."""
    return Errors(2 * plain.loss + FLOOR, 2 * plain.gradient + FLOOR)


def bounded(actual: Tensor, exact: Tensor, plain: Tensor, what: str) -> Verdict:
    """Whether a kernel's `actual` is as near to `exact` (float64) as `plain` is, within the factors above.

    One rounding of the largest value is always allowed: plain PyTorch may hit a value exactly.
    """
    if (actual.shape, actual.dtype) != (exact.shape, plain.dtype):
        found = f"{actual.dtype} {tuple(actual.shape)}, wanted {plain.dtype} {tuple(exact.shape)}"
        return Verdict(False, {what: found})
    if actual.numel() == 0:
        return Verdict(True)
    actual, exact, plain = (x.detach() for x in (actual, exact, plain))
    slack = torch.finfo(actual.dtype).eps * float(exact.abs().max())
    ours, theirs = (actual.double() - exact).abs(), (plain.double() - exact).abs()
    pairs = {"maximum": (float(ours.max()), MAX_FACTOR * float(theirs.max()) + slack)}
    if actual.dtype in (torch.bfloat16, torch.float16):
        pairs["mean"] = float(ours.mean()), MEAN_FACTOR * float(theirs.mean()) + slack / 32
    # A NaN is within no bound.
    correct = all(error <= bound for error, bound in pairs.values())
    return Verdict(correct, {f"{what}, {kind}": {"error": e, "bound": b} for kind, (e, b) in pairs.items()})


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 means float32 on a GPU too: convolutions there use TF32 unless told not to."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def distance(x: Tensor, truth: Tensor) -> float:
    """The L2 norm of the difference over that of the truth."""
    truth = truth.double()
    return float((x.double() - truth).norm() / truth.norm().clamp(min=1e-30))
