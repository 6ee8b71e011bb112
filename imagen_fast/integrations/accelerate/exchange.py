"""A module of a live model made one of ours by its class: weights, hooks, adapters and names stay its own."""

from __future__ import annotations

from torch import nn

Class = type[nn.Module]


def made_of(module: nn.Module, original: Class) -> bool:
    """Whether `module` is an `original`, or one that FSDP2 or a parametrization has put a class before.

    A subclass that somebody wrote may compute something else, and is none.
    """
    return type(module) is original or (original in type(module).__bases__ and _is_made_at_runtime(module))


def exchange(module: nn.Module, original: Class, ours: Class) -> None:
    """Let `module`, made of `original`, be one of `ours`, a subclass that adds no state of its own.

    A class, not a `forward` of the instance: copies, pickles and compiled graphs follow it, and isinstance
    still holds. The same call with the two changed over undoes it.
    """
    if type(module) is original:
        module.__class__ = ours
        return
    wrapper = type(module)
    bases = tuple(ours if base is original else base for base in wrapper.__bases__)
    own = {name: value for name, value in vars(wrapper).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(wrapper.__name__, bases, own)


def _is_made_at_runtime(module: nn.Module) -> bool:
    """FSDP2 makes `FSDPLinear` of Linear and FSDPModule, a parametrization `ParametrizedLinear` of Linear."""
    return type(module).__name__.startswith(("FSDP", "Parametrized"))
