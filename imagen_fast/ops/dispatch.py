"""Which back-end serves a call: chosen by device and case, or forced, and explained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.autograd import forward_ad

from imagen_fast.errors import BackendUnavailable, InvalidInput

BACKENDS = ("triton", "cpu", "reference")

# The fastest first. Triton leads on a CPU tensor only where its interpreter runs, and then only by force.
_PREFERENCE = {"cuda": ("triton", "reference"), "cpu": ("cpu", "reference")}

NO_RULES = "it has no rules for torch.func and forward-mode differentiation"

_log = logging.getLogger("imagen_fast")
_told: set[tuple[str, str]] = set()

# A plain module variable, not a ContextVar: torch.compile traces it.
_forced: str | None = None


def preference(device_type: str) -> tuple[str, ...]:
    """The back-ends that calls on a kind of device try, the fastest first."""
    return _PREFERENCE.get(device_type, ("reference",))


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, for which our kernels have no rules.

    In forward mode what has none gives no tangent, in silence.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def check_backend(name: str) -> str:
    if name not in BACKENDS:
        raise InvalidInput(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    return name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force one back-end for every operation in the block; where it cannot serve it raises its reason.

    For the whole process, not for one thread: a plain variable is what torch.compile can trace.
    """
    global _forced
    before, _forced = _forced, check_backend(name)
    try:
        yield
    finally:
        _forced = before


def choose(
    op: str, device: torch.device, refusal: Callable[[str], str | None], forced: str | None = None
) -> str:
    """The back-end for one call of `op`.

    Args:
        refusal: why a back-end cannot serve this call, or None where it can.
        forced: the caller's `backend=` argument; it goes before `use_backend`.

    Raises:
        BackendUnavailable: the forced back-end refuses.
    """

    def why_not(name: str) -> str | None:
        if name != "reference" and transformed():
            return NO_RULES
        return refusal(name)

    forced = forced or _forced
    if forced is not None:
        reason = why_not(check_backend(forced))
        if reason is not None:
            raise BackendUnavailable(f"{op}: the {forced} back-end cannot serve this call: {reason}")
        return forced
    for name in preference(device.type):
        reason = why_not(name)
        if reason is None:
            return name
        _tell_once(op, name, reason)
    return "reference"


@torch.compiler.disable
def _log_fallback(op: str, name: str, reason: str) -> None:
    if (op, reason) not in _told:
        _told.add((op, reason))
        _log.warning("%s: not on the %s back-end: %s", op, name, reason)


def _tell_once(op: str, name: str, reason: str) -> None:
    # Logging would break the graph: a compiled call falls back in silence, `doctor` tells the reason.
    if not torch.compiler.is_compiling():
        _log_fallback(op, name, reason)
