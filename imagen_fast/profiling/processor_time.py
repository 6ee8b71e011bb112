"""Seconds that a processor spent on the program's own code, without what the system did for it (reading, say)."""

from __future__ import annotations

import time

try:
    import resource
except ImportError:  # Windows
    of_thread, of_process = time.thread_time, time.process_time
else:

    def of_process() -> float:
        """Of all threads of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime

    if hasattr(resource, "RUSAGE_THREAD"):

        def of_thread() -> float:
            """Of the calling thread."""
            return resource.getrusage(resource.RUSAGE_THREAD).ru_utime

    else:  # macOS
        of_thread = time.thread_time
