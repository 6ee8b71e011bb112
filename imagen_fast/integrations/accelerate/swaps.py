"""The ways to make a module of another library faster, and the libraries whose modules we know."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import nn

from imagen_fast.integrations.accelerate.exchange import exchange, made_of
from imagen_fast.integrations.accelerate.trial import Work
from imagen_fast.integrations.sdpa import TYPES

Kind = Literal["attention", "loss", "embedding", "norm", "activation"]
Types = frozenset[torch.dtype]
Undo = Callable[[], None]


class Trial(NamedTuple):
    """Modules of one `size` have one trial; `work` is made when it is asked for."""

    size: Hashable
    work: Callable[[torch.dtype, bool], Work]


class Swap(Protocol):
    @property
    def kind(self) -> Kind: ...

    @property
    def types(self) -> Types:
        """Of numbers, that ours can serve."""

    def fits(self, module: nn.Module) -> bool:
        """Whether this is a module of that kind."""

    def refusal(self, module: nn.Module) -> str | None:
        """Why one that fits must stay as it is."""

    def remark(self, module: nn.Module) -> str | None:
        """When one that is swapped goes the original's way all the same."""

    def trial(self, module: nn.Module, model: nn.Module) -> Trial | None:
        """Work of the size that `module` has in `model`; None where it is swapped untried."""

    def apply(self, module: nn.Module, types: Types) -> Undo:
        """Swap it; `types` are the types of numbers that ours is to serve."""


@dataclass(frozen=True)
class ByClass:
    """The module becomes one of a subclass of its own class.

    Args:
        why_not, tried, noted: see `refusal`, `trial` and `remark` of `Swap`.
        types: that ours serves.
    """

    kind: Kind
    original: type[nn.Module]
    ours: type[nn.Module]
    why_not: Callable[[Any], str | None] = lambda module: None
    tried: Callable[[Any, nn.Module], Trial | None] = lambda module, model: None
    noted: Callable[[Any], str | None] = lambda module: None
    types: Types = TYPES

    def fits(self, module: nn.Module) -> bool:
        return made_of(module, self.original) or made_of(module, self.ours)

    def refusal(self, module: nn.Module) -> str | None:
        return "it is ours already" if made_of(module, self.ours) else self.why_not(module)

    def remark(self, module: nn.Module) -> str | None:
        return self.noted(module)

    def trial(self, module: nn.Module, model: nn.Module) -> Trial | None:
        return self.tried(module, model)

    def apply(self, module: nn.Module, types: Types) -> Undo:
        exchange(module, self.original, self.ours)
        unmark = serve(module, types)

        def undo() -> None:
            unmark()
            exchange(module, self.ours, self.original)

        return undo


def working_type(x: torch.Tensor) -> torch.dtype:
    """In which a product of `x` is made: under autocast not in its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def serve(module: nn.Module, types: Types) -> Undo:
    """Remember at the module which types of numbers ours serves there: a graph is compiled for just them."""
    module.imagen_fast_types = types  # type: ignore[assignment]

    def undo() -> None:
        vars(module).pop("imagen_fast_types", None)  # it may have been marked twice

    return undo


def device_of(module: nn.Module) -> torch.device | None:
    """Of its weights; None without any."""
    return next((parameter.device for parameter in module.parameters()), None)


# The module of ours that knows a library, by the library's name.
_KNOWN_BY = {"transformers": "hugging_face", "timm": "timm"}


def swaps_for(model: nn.Module) -> list[Swap]:
    """Of the libraries that the model's modules come from; no other is imported."""
    classes = {base for module in model.modules() for base in type(module).__mro__}
    libraries = {cls.__module__.partition(".")[0] for cls in classes}
    found: list[Swap] = []
    for library in sorted(libraries & _KNOWN_BY.keys()):
        known = importlib.import_module(f"imagen_fast.integrations.accelerate.{_KNOWN_BY[library]}")
        found += known.SWAPS
    return found
