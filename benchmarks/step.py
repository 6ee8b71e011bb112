"""A training step, whoever's it is: forward, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from imagen_fast.benchmarks.correctness import Answer, full_float32

# MAE's own (He et al. 2021, table 8). No clipping on any side, so that every step does the same work.
LEARNING_RATE = 1.5e-4
BETAS = (0.9, 0.95)
DECAY = 0.05


@dataclass(frozen=True)
class TrainingStep:
    """Call it for one step on its batch.

    Args:
        forward: from the tensors of a batch to the loss.
        update: applies the gradients and clears them.
        batch: those of every timed step, each with the images along its first dimension.
        names: gradients by parameter name to the same under our names, where those differ.
    """

    module: nn.Module
    forward: Callable[..., Tensor]
    update: Callable[[], object]
    batch: tuple[Tensor, ...]
    names: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    def __call__(self) -> Tensor:
        loss = self.forward(*self.batch)
        loss.backward()
        self.update()
        return loss.detach()

    def answer(self, images: int) -> Answer:
        """The loss and the gradients of a step on the first few images; it leaves the weights as they are."""
        with full_float32():
            loss = self.forward(*(part[:images] for part in self.batch))
            loss.backward()
        gradients = {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}
        self.module.zero_grad()  # which lets go of the gradients, and leaves them as they are
        return Answer(float(loss.detach()), self.names(gradients))
