"""What this build and this processor can do."""

from __future__ import annotations

from typing import TypedDict

from imagen_fast.native.library import cpu, load


class CpuFeatures(TypedDict):
    avx2: bool
    avx512f: bool
    avx512_bf16: bool
    amx_bf16: bool


class BuildInfo(TypedDict):
    cpu: bool
    cuda: bool
    jpeg: bool
    openmp: bool
    compiler: str
    instruction_set: str
    cuda_architectures: str
    left_out: str


def available() -> bool:
    """Whether the CPU kernels are there."""
    return load("_cpu")[0] is not None


def unavailable_because() -> str | None:
    """One sentence, or None where the CPU kernels are there."""
    return load("_cpu")[1]


def build_info() -> BuildInfo:
    """What was built and what was left out; never raises."""
    (native, why), (device, _) = load("_cpu"), load("_cuda")
    return {
        "cpu": native is not None,
        "cuda": device is not None,
        "jpeg": hasattr(native, "decode_jpeg"),
        "openmp": native is not None and native.openmp,
        "compiler": native.compiler if native else "",
        "instruction_set": native.instruction_set() if native else "",
        "cuda_architectures": device.compiled_architectures if device else "",
        "left_out": native.left_out if native else why or "",
    }


def cpu_features() -> CpuFeatures:
    """What the processor offers and the operating system lets us use; all false without the native module."""
    if not available():
        return {"avx2": False, "avx512f": False, "avx512_bf16": False, "amx_bf16": False}
    return cpu().cpu_features()


def use_instruction_set(name: str) -> None:
    """Make the kernels use `portable`, `avx2`, `avx512` or `avx512_bf16`: for tests and comparisons."""
    cpu().use_instruction_set(name)
