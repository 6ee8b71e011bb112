"""What the compiled CUDA module can say without a GPU: see csrc/cuda."""

from __future__ import annotations

from imagen_fast.native import library


def device_count() -> int:
    """0 without a driver, without a device, and without the module."""
    module, _ = library.load("_cuda")
    return 0 if module is None else module.device_count()


def compiled_architectures() -> tuple[str, ...]:
    """Such as ("80", "90", "100"); empty without the module."""
    module, _ = library.load("_cuda")
    return () if module is None else tuple(module.compiled_architectures.split())
