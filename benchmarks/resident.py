"""The memory that this process has resident: the most of it, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

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
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
