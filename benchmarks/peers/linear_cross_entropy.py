"""Projection and cross-entropy by others: PyTorch in its ways, Liger, Cut Cross-Entropy, QuACK.

Each function gives the mean loss of hidden [M, E], weight [V, E] and int64 targets [M]. One that takes
options gives such a function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from imagen_fast.benchmarks.peers import CUT_CROSS_ENTROPY, LIGER, QUACK

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

# The rows of a chunk at which PyTorch's own is at its best, or within 2% of that, in all our cases.
CHUNK_ROWS = 4096


def full_logits(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    logits = F.linear(hidden, weight)
    # A loss in half a type is no reference for anything: all trainers widen the logits.
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), target)


def plain() -> Loss:
    return full_logits


def compiled() -> Loss:
    return torch.compile(full_logits, dynamic=False)


def torch_default() -> Loss:
    return lambda hidden, weight, target: F.linear_cross_entropy(hidden, weight, target)


def torch_chunked(policy: str, rows: int = CHUNK_ROWS) -> Loss:
    """PyTorch's op in chunks of rows.

    Args:
        policy: `accurate`, its own choice for bf16 on a CPU, makes the products for d_weight in float32;
            `compact` in the type of the input.
    """
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, acc_policy=policy)  # type: ignore[arg-type]
    return lambda hidden, weight, target: F.linear_cross_entropy(hidden, weight, target, options=options)


def liger() -> Loss:
    (kernel,) = LIGER.load("liger_fused_linear_cross_entropy")
    return kernel


def cut_cross_entropy() -> Loss:
    (kernel,) = CUT_CROSS_ENTROPY.load("linear_cross_entropy")
    return lambda hidden, weight, target: kernel(hidden, weight, target)


def quack() -> Loss:
    (kernel,) = QUACK.load("chunked_linear_cross_entropy")
    return lambda hidden, weight, target: kernel(hidden, weight, target)
