"""Activations of an MLP, which are one pass of ours over memory in bf16 on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.integrations.accelerate.swaps import ByClass, Trial, device_of
from imagen_fast.integrations.accelerate.trial import Work
from imagen_fast.ops.dispatch import transformed
from imagen_fast.ops.gelu import gelu

# Of a trial.
SHAPE = (2048, 1024)


class Served:
    """Before the class of an activation it makes that one ours."""

    @staticmethod
    def function(x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype not in getattr(self, "imagen_fast_types", ()) or transformed():
            return super().forward(input)  # type: ignore[misc]
        return self.function(input)


class GELU(Served, nn.GELU):
    function = staticmethod(gelu)


def swap(
    original: type[nn.Module], ours: Any, why_not: Callable[[Any], str | None] = lambda module: None
) -> ByClass:
    """`ours` is `original` made `Served`."""

    def trial(activation: Any, model: nn.Module) -> Trial:
        def work(dtype: torch.dtype, autocast: bool) -> Work:
            x = torch.randn(SHAPE, dtype=dtype, device=device_of(model), requires_grad=True)
            # Not by a call, which would run its hooks.
            return Work(functools.partial(original.forward, activation), ours.function, (x,))

        return Trial(SHAPE, work)

    return ByClass("activation", original, ours, why_not, trial, types=frozenset({torch.bfloat16}))


def _approximate(module: Any) -> str | None:
    return None if module.approximate == "none" else f"it is the approximation by {module.approximate}"


SWAP = swap(nn.GELU, GELU, _approximate)
