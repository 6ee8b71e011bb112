"""Activations of an MLP, which are one pass of ours over memory in bf16 on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.integrations.accelerate.swaps import ByClass, Swap, Trial, device_of
from imagen_fast.integrations.accelerate.trial import IMAGES, Work
from imagen_fast.integrations.sdpa import plain
from imagen_fast.ops.dispatch import transformed
from imagen_fast.ops.gelu import gelu

_USUAL_WIDTH = 1024


class Served:
    """Before the class of an activation it makes that one ours."""

    @staticmethod
    def function(x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        types = getattr(self, "imagen_fast_types", ())
        if not plain(input) or input.dtype not in types or transformed():
            return super().forward(input)  # type: ignore[misc]
        return self.function(input)


class GELU(Served, nn.GELU):
    function = staticmethod(gelu)


def swaps(tokens: Callable[[Any], int], known: dict[type[nn.Module], Any]) -> list[Swap]:
    """Of PyTorch's GELU, and of the `known` ones of a library with theirs made `Served`.

    Args:
        tokens: of an image in a model of that library.
    """
    return [
        _swap(nn.GELU, GELU, tokens, _approximate),
        *(_swap(original, ours, tokens) for original, ours in known.items()),
    ]


def _swap(
    original: type[nn.Module],
    ours: Any,
    tokens: Callable[[Any], int],
    why_not: Callable[[Any], str | None] = lambda module: None,
) -> ByClass:
    def trial(activation: Any, model: nn.Module) -> Trial:
        shape = IMAGES, tokens(model), _width(activation, model)

        def work(dtype: torch.dtype, autocast: bool) -> Work:
            x = torch.randn(shape, dtype=dtype, device=device_of(model), requires_grad=True)
            # Not by a call, which would run its hooks.
            return Work(functools.partial(original.forward, activation), ours.function, (x,))

        return Trial(shape, work)

    return ByClass("activation", original, ours, why_not, trial, types=frozenset({torch.bfloat16}))


def _width(activation: nn.Module, model: nn.Module) -> int:
    """Of the widest layer beside it; transformers' Conv1D has it as `nf`."""
    beside = (
        list(m.children()) for m in model.modules() if any(child is activation for child in m.children())
    )
    found = (getattr(layer, "out_features", getattr(layer, "nf", 0)) for layer in next(beside, []))
    return max(found, default=0) or _USUAL_WIDTH


def _approximate(module: Any) -> str | None:
    return None if module.approximate == "none" else f"it is the approximation by {module.approximate}"
