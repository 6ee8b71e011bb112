"""AdamW over all parameters in one pass through memory: see csrc/cpu/adamw.h."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import dense, dtype_number


class AdamwParameter(NamedTuple):
    """One parameter with its state; all tensors contiguous and of one size."""

    gradient: Tensor  # float32 or bfloat16
    master: Tensor  # float32: what is updated
    exp_avg: Tensor  # float32
    exp_avg_sq: Tensor  # float32
    weight: Tensor | None  # bfloat16: written as the rounded master; None (or the master) where there is none
    lr: float
    weight_decay: float


def adamw_step(
    parameters: Sequence[AdamwParameter],
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    gradient_scale: float = 1.0,
) -> None:
    """Step number `step` (the first is 1), in place, by the formula of torch.optim.AdamW.

    Every gradient is multiplied by `gradient_scale` first, so clipping needs no pass of its own.
    """
    if step < 1:
        raise InvalidInput(f"step counts from 1, not {step}")
    native = cpu()
    constants = native.AdamwStep(
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        bias_correction1=1 - beta1**step,
        bias_correction2_sqrt=math.sqrt(1 - beta2**step),
        gradient_scale=gradient_scale,
    )
    native.adamw_step([_addresses(p) for p in parameters], constants, threads())


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """The Euclidean norm over all gradients, float32 or bfloat16; the same bits at any number of threads."""
    return cpu().gradient_norm([_gradient(g) for g in gradients], threads())


def _gradient(x: Tensor) -> tuple[int, int, int]:
    return dense("a gradient", x), dtype_number("a gradient", x), x.numel()


def _addresses(p: AdamwParameter) -> tuple[tuple[int, int, int], int, int, int, int, float, float]:
    size = p.gradient.numel()
    weight = 0
    if p.weight is not None and p.weight.data_ptr() != p.master.data_ptr():
        weight = dense("a weight with a master", p.weight, size, torch.bfloat16)
    return (
        _gradient(p.gradient),
        dense("a master weight", p.master, size, torch.float32),
        dense("exp_avg", p.exp_avg, size, torch.float32),
        dense("exp_avg_sq", p.exp_avg_sq, size, torch.float32),
        weight,
        p.lr,
        p.weight_decay,
    )
