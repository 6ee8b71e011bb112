"""How long a thread had to wait for a processor; Linux tells it of each."""

from __future__ import annotations

from pathlib import Path


def delay(schedstat: Path) -> float | None:
    """Seconds in which a thread could have run but had no processor, since it began.

    Args:
        schedstat: its file of that name below `/proc`.

    Returns:
        None where the system does not tell, or the thread is not there.
    """
    try:
        return int(schedstat.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
