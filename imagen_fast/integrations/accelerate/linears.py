"""Linear layers in bf16 on the CPU: the bias goes with the product; projections of one input are one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.integrations.accelerate.exchange import exchange, made_of
from imagen_fast.integrations.accelerate.swaps import (
    ByClass,
    Kind,
    Swap,
    Trial,
    Types,
    Undo,
    serve,
    working_type,
)
from imagen_fast.integrations.accelerate.trial import Work
from imagen_fast.ops.linear import linear

BF16: Types = frozenset({torch.bfloat16})
# Of a trial: 8 images in 197 tokens each.
_ROWS = 1576
# Of transformers since 5.2, and before.
_NAMES = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))


def _pays_here(module: nn.Module) -> str | None:
    if next(module.parameters()).device.type != "cpu":
        return "it is PyTorch that is fast there"
    return None


class Linear(nn.Linear):
    imagen_fast_types: Types

    def forward(self, x: Tensor) -> Tensor:
        if working_type(x) not in self.imagen_fast_types:
            return super().forward(x)
        return _product(x, self.weight, self.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # Where autocast would convert them for PyTorch's.
    return linear(*(each.to(torch.bfloat16) for each in (x, weight, bias)))


def _trial(module: Any) -> Trial:
    size = module.in_features, module.out_features

    def work(dtype: torch.dtype, autocast: bool) -> Work:
        own = torch.float32 if autocast else dtype
        x, weight, bias = (
            torch.randn(shape, dtype=own, requires_grad=True)
            for shape in ((_ROWS, size[0]), (size[1], size[0]), size[1:])
        )
        return Work(nn.functional.linear, _product, (x, weight, bias), dtype if autocast else None)

    return Trial(size, work)


class LinearSwap(ByClass):
    def fits(self, module: nn.Module) -> bool:
        return super().fits(module) and module.bias is not None and not hasattr(module, "imagen_fast_joined")


@dataclass(eq=False)
class Joined:
    """The projections of queries, keys and values, made when the first of them is asked for.

    Args:
        attention: whose they are.
        names: under which it holds them.
    """

    attention: nn.Module
    names: tuple[str, ...]
    ready: dict[int, Tensor] = field(default_factory=dict)
    source: tuple[Tensor, int] | None = None

    def of(self, part: nn.Module, x: Tensor) -> Tensor:
        parts = self._parts()
        number = next(n for n, each in enumerate(parts) if each is part)
        # The others are asked with the very same tensor, or for something else.
        if self.source is None or self.source[0] is not x or self.source[1] != x._version:
            self.ready.clear()
        if number not in self.ready:
            self.ready = dict(enumerate(_products(parts, x)))
            self.source = x, x._version
        made = self.ready.pop(number)
        if not self.ready:
            self.source = None
        return made

    def serve(self) -> bool:
        """Not where one was put into an adapter, which may write into its output, a view of all three; not
        while some weights are elsewhere either: sharded, each by itself.
        """
        parts = self._parts()
        return all(isinstance(part, JoinedLinear) for part in parts) and all(
            type(p) in (nn.Parameter, Tensor) for part in parts for p in part.parameters(recurse=False)
        )

    def _parts(self) -> list[Any]:
        return [getattr(self.attention, name) for name in self.names]


def _products(parts: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    weight = torch.cat([part.weight.to(torch.bfloat16) for part in parts])
    biases = [_bias(part).to(torch.bfloat16) for part in parts]
    made = linear(x.to(torch.bfloat16), weight, torch.cat(biases))
    return made.split([part.out_features for part in parts], -1)


def _bias(part: Any) -> Tensor:
    return part.weight.new_zeros(part.out_features) if part.bias is None else part.bias


class JoinedLinear(nn.Linear):
    imagen_fast_types: Types
    imagen_fast_joined: Joined

    def forward(self, x: Tensor) -> Tensor:
        # A compiler joins what it wants to join.
        if torch.compiler.is_compiling() or working_type(x) not in self.imagen_fast_types:
            return super().forward(x)
        return self.imagen_fast_joined.of(self, x) if self.imagen_fast_joined.serve() else super().forward(x)


@dataclass(frozen=True)
class JoinedSwap:
    """Of attention that asks its three projections with one input; their outputs are views of one."""

    kind: Kind = "projections"
    types: Types = BF16

    def fits(self, module: nn.Module) -> bool:
        return bool(parts := _parts(module)) and all(map(_plain, parts)) and _asks_itself(module)

    def refusal(self, module: nn.Module) -> str | None:
        parts = _parts(module)
        if len({(p.in_features, p.weight.device, p.weight.dtype) for p in parts}) > 1:
            return "its projections are not alike"
        return _pays_here(module)

    def remark(self, module: nn.Module) -> str | None:
        return None

    def trial(self, module: nn.Module) -> Trial | None:
        parts = _parts(module)
        width = parts[0].in_features
        size = width, *((part.out_features, part.bias is None) for part in parts)

        def work(dtype: torch.dtype, autocast: bool) -> Work:
            own = torch.float32 if autocast else dtype
            layers = [nn.Linear(width, out, not without, dtype=own) for out, without in size[1:]]
            x = torch.randn(_ROWS, width, dtype=own, requires_grad=True)

            def theirs(x: Tensor, *_: Tensor) -> Tensor:
                return torch.cat([layer(x) for layer in layers], -1)

            def ours(x: Tensor, *_: Tensor) -> Tensor:
                return torch.cat(_products(layers, x), -1)

            weights = [p for layer in layers for p in layer.parameters()]
            return Work(theirs, ours, (x, *weights), dtype if autocast else None)

        return Trial(size, work)

    def apply(self, module: nn.Module, types: Types) -> Undo:
        parts = _parts(module)
        joined = Joined(module, _names(module))
        unmarked = [serve(part, types) for part in parts]
        for part in parts:
            exchange(part, nn.Linear, JoinedLinear)
            part.imagen_fast_joined = joined

        def undo() -> None:
            for part, unmark in zip(parts, unmarked, strict=True):
                unmark()
                del part.imagen_fast_joined
                exchange(part, JoinedLinear, nn.Linear)

        return undo


def _names(attention: nn.Module) -> tuple[str, ...]:
    return next((names for names in _NAMES if all(hasattr(attention, name) for name in names)), ())


def _parts(attention: nn.Module) -> list[Any]:
    return [getattr(attention, name) for name in _names(attention)]


def _plain(part: Any) -> bool:
    return isinstance(part, nn.Module) and made_of(part, nn.Linear)


def _asks_itself(attention: nn.Module) -> bool:
    """Whether there is one input, as in self-attention."""
    taken = inspect.signature(type(attention).forward).parameters
    return "hidden_states" in taken and not {"encoder_hidden_states", "key_value_states"} & set(taken)


SWAPS: list[Swap] = [
    # First: what is joined is no linear layer by itself.
    JoinedSwap(),
    LinearSwap("linear", nn.Linear, Linear, _pays_here, _trial, BF16),
]
