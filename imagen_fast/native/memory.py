"""How this process's allocator treats memory that was freed: see csrc/cpu/memory.h."""

from __future__ import annotations

from imagen_fast.native.features import available
from imagen_fast.native.library import cpu


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for good.

    A training step on the CPU frees and allocates the same gigabytes over and over. By default glibc gives
    much of it back to the system each time, and the next step pays a page fault for every 4 KB. Resident
    memory then stays at its peak between steps.

    Returns:
        Whether it will: False, and nothing is changed, without the native module or with another C library.
    """
    return available() and cpu().keep_freed_memory()
