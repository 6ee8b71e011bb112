"""The discretised mixture of logistics on the CPU: see `likelihood`."""

from __future__ import annotations

from imagen_fast import native
from imagen_fast.ops.cpu.likelihood import register

pixel_logistic_mixture = register(
    "pixel_logistic_mixture", "int ignore_index, int levels", native.logistic_mixture, keeps_log_z=False
)
