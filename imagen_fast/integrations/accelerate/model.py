"""Swap what can be swapped in a live model, and tell what was and what was not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.integrations.accelerate.swaps import Kind, Swap, Types, Undo, device_of, swaps_for
from imagen_fast.integrations.accelerate.trial import gain

# A swap that gains less than it may lose by chance is none.
LEAST_GAIN = 1.02


class Swapped(NamedTuple):
    """Args:
    gains: how many times as fast as the original in a trial, by type of numbers; empty without one.
    remark: when it goes the original's way all the same.
    """

    name: str
    module: str
    kind: Kind
    gains: dict[torch.dtype, float]
    remark: str | None = None


class Left(NamedTuple):
    name: str
    module: str
    kind: Kind
    why: str


@dataclass
class Acceleration:
    """What `accelerate` did to a model."""

    swapped: list[Swapped] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    memory_kept: bool = False
    _undo: list[Undo] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Make every module what it was; weights are not touched, neither way.

        Memory stays kept, and copies that were made of the model meanwhile stay as they are.
        """
        while self._undo:
            self._undo.pop()()

    def __str__(self) -> str:
        lines = []
        groups: dict[tuple, list[str]] = defaultdict(list)
        for swapped in self.swapped:
            about = filter(None, [_told(swapped.gains, marked=True) or "not tried", swapped.remark])
            groups[f"swapped {swapped.kind} ({'; '.join(about)})", swapped.module].append(swapped.name)
        for left in self.left:
            groups[f"left {left.kind}: {left.why}", left.module].append(left.name)
        for (what, module), names in groups.items():
            lines.append(f"{len(names)} x {module}: {what}, {_range(names)}")
        if self.memory_kept:
            lines.append("freed memory is kept by the process")
        return "\n".join(lines) or "nothing that imagen_fast knows a faster way for"


def accelerate(model: nn.Module, *, trial: bool = True) -> Acceleration:
    """Swap attention, loss, embedding and activation of a live model for ours, in place.

    Weights, names in the state dict, hooks and adapters stay as they are; what cannot be served at a call,
    such as dropped attention probabilities, goes the original's way. It works before and after
    `torch.compile`, `fully_shard` and DDP.

    Args:
        model: of transformers or timm, or one that holds such modules, wrapped or not.
        trial: time ours beside theirs on made-up input first, some seconds, and swap only what pays on this
            machine. Without, all that can be served is.

    Returns:
        What was swapped and what was left, and why; `print` it. Its `undo` takes everything back.

    Raises:
        InvalidInput: `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"accelerate takes a torch.nn.Module, not {type(model).__name__}")
    made = Acceleration()
    swaps = swaps_for(model)
    tried: dict[tuple, dict[torch.dtype, float]] = {}
    for name, module in model.named_modules():
        # Of every kind one: some are of every library.
        fitting = {swap.kind: swap for swap in reversed(swaps) if swap.fits(module)}
        for swap in fitting.values():
            _consider(swap, name, module, model, tried if trial else None, made)
    if made.swapped and any(p.device.type == "cpu" for p in model.parameters()):
        made.memory_kept = native.keep_freed_memory()
    return made


def _consider(
    swap: Swap, name: str, module: nn.Module, model: nn.Module, tried: dict | None, made: Acceleration
) -> None:
    """`tried`: what was found so far; None where nothing is to be tried."""
    about = name, type(module).__name__, swap.kind
    why = _unfit(module, model, swap.kind) or swap.refusal(module)
    if why is not None:
        made.left.append(Left(*about, why))
        return
    types, gains = tuple(t for t in _types(module) if t in swap.types), {}
    if not types:
        made.left.append(Left(*about, f"ours does not serve {_name(_own_type(module))}"))
        return
    if tried is not None and (planned := swap.trial(module, model)) is not None:
        if torch.device("meta") == (device_of(module) or device_of(model)):
            made.left.append(Left(*about, "its weights are on the meta device, where nothing can be tried"))
            return
        key = id(swap), type(module), planned.size, types
        if key not in tried:
            own = _own_type(module)
            # The random numbers that come next are the program's.
            with torch.random.fork_rng(_gpus(model)), torch.inference_mode(False), torch.enable_grad():
                tried[key] = {t: gain(planned.work(t, t != own)) for t in types}
        gains = tried[key]
        types = tuple(t for t in types if gains[t] >= LEAST_GAIN)
        if not types:
            made.left.append(Left(*about, f"ours does not pay on this machine ({_told(gains)})"))
            return
    made._undo.append(swap.apply(module, _with_half(types) & swap.types))
    made.swapped.append(Swapped(*about, gains, swap.remark(module)))


def _unfit(module: nn.Module, model: nn.Module, kind: Kind) -> str | None:
    if "forward" in vars(module):
        return "its forward is its own, and not that of its class"
    if kind == "activation":
        # Which has no device of its own.
        on = device_of(model)
        return None if on is None or on.type in ("cpu", "meta") else "ours is for the CPU"
    return "it has no weights of its own" if device_of(module) is None else None


def _told(gains: dict[torch.dtype, float], marked: bool = False) -> str:
    """`marked`: where one of several does not pay."""
    return ", ".join(
        f"{x:.2f}x in {_name(dtype)}" + (", where it is left" if marked and x < LEAST_GAIN else "")
        for dtype, x in gains.items()
    )


def _gpus(model: nn.Module) -> list[torch.device]:
    return list({parameter.device for parameter in model.parameters() if parameter.is_cuda})


def _own_type(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def _types(module: nn.Module) -> tuple[torch.dtype, ...]:
    """The type of its weights, and that of autocast."""
    own = _own_type(module)
    return (own, torch.bfloat16) if own == torch.float32 else (own,)


def _with_half(types: tuple[torch.dtype, ...]) -> Types:
    """Where bf16 pays, so does fp16: the kernels are the same, and a trial of each takes twice as long."""
    return frozenset(types) | ({torch.float16} if torch.bfloat16 in types else set())


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))


def _range(names: list[str]) -> str:
    names = [name or "the model itself" for name in names]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
