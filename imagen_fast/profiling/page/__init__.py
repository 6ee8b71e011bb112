"""The report, and two of them compared, as an HTML page each."""

from imagen_fast.profiling.page.compared import write_diff
from imagen_fast.profiling.page.document import write

__all__ = ["write", "write_diff"]
