"""Batch norms, which in use go by statistics that are no weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Those within a module that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def take_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Let every batch norm of a model go by these inputs, each batch of them counting alike.

    Training leaves statistics of what training saw, with the weights changing meanwhile; where the model is
    used on something else, as whole images after masked ones, features would come out shifted. One that the
    inputs do not pass keeps what it has. The model is left in evaluation mode.
    """
    norms = batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.zero_()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for x in inputs:
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
