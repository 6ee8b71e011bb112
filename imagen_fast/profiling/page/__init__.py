"""The report as one HTML page."""

from imagen_fast.profiling.page.document import write

__all__ = ["write"]
