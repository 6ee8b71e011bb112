"""What an objective returns for one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from imagen_fast.data import Batch


@dataclass
class Output:
    """The loss to differentiate, and scalars to report beside it."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """What the training loop needs of a task: a loss for batch number `step`.

    Whatever is random in it is a function of (seed, step), so that a resumed run repeats it.
    """

    def __call__(self, batch: Batch, step: int) -> Output: ...
