"""The pixel cross-entropy on the CPU: see `likelihood`."""

from __future__ import annotations

from imagen_fast import native
from imagen_fast.ops.cpu.likelihood import register

pixel_cross_entropy = register(
    "pixel_cross_entropy",
    "int ignore_index, float label_smoothing, float z_loss, float sigma",
    native.cross_entropy,
    keeps_log_z=True,
)
