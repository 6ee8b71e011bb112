"""A training step of another's model, as transformers' Trainer makes it but for the clipping of gradients.

Its default bounds their norm (`max_grad_norm=1.0`), which ours does not; without it, both do the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.step import BETAS, DECAY, LEARNING_RATE, TrainingStep


def training_step(
    model: nn.Module,
    loss: Callable[..., Tensor],
    batch: tuple[Tensor, ...],
    dtype: torch.dtype,
    compiled: bool = False,
    names: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> TrainingStep:
    """A step of `model`: float32 weights, and bf16 by autocast where `dtype` asks for it.

    The fused optimiser is what the Trainer takes since PyTorch 2.8 ("adamw_torch_fused").

    Args:
        loss: of the model, from the tensors of a batch.
        names: see `TrainingStep`.
    """
    device = batch[0].device
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, BETAS, weight_decay=DECAY, fused=True)
    network = torch.compile(loss) if compiled else loss

    def forward(*given: Tensor) -> Tensor:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
            return network(*given)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return TrainingStep(model, forward, update, batch, names)
