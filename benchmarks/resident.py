"""The memory that this process has resident: the most of it, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

from imagen_fast.benchmarks.correctness import Verdict

_SELF = Path("/proc/self")


def reset_peak() -> bool:
    """Count anew from what is resident now; False where the platform cannot."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak() -> int | None:
    """Bytes, the most at once since `reset_peak`, of all that lies in the process; None if not known."""
    return _status("VmHWM")


def peak_of(call: Callable[[], object]) -> int | None:
    """Bytes that `call` needs at once beyond what lies in the process before it; None if not known.

    It is called twice: what only a first call brings, libraries and compiled code, is none of its work. What
    the heap keeps of freed memory is given back between the two: the second has to ask for all it needs.
    """
    call()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # no glibc: nobody knows what its heap keeps
        return None
    before = _status("VmRSS")
    if before is None or not reset_peak():
        return None
    call()
    after = peak()
    return None if after is None else max(after - before, 0)


def evidence(call: Callable[[], object]) -> Verdict:
    """What `peak_of` finds, beside whatever else a check has found."""
    return Verdict(True, {"peak_bytes_of_a_call": peak_of(call)})


def _status(name: str) -> int | None:
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
