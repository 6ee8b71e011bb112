"""What a device can do at most: of a known GPU what its maker publishes, of a CPU what is measured."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from imagen_fast.profiling.recording import Peaks

_T = 1e12


@dataclass(frozen=True)
class _Published:
    """Dense, without sparsity, with accumulation in float32; operations and bytes a second, in 10^12.

    Args:
        name: pattern of the whole name that NVML gives.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    source: str
    bfloat16: bool = True


# Whole names only: a chip of another form (PCIe, laptop, a slice) has other peaks.
_GPUS = (
    _Published(r"NVIDIA H200", 989.4, 66.9, 4.8, "NVIDIA H200 data sheet, SXM"),
    _Published(r"NVIDIA H200 NVL", 835.5, 60, 4.8, "NVIDIA H200 data sheet, NVL"),
    _Published(r"NVIDIA H100 80GB HBM3", 989.4, 66.9, 3.35, "NVIDIA H100 data sheet, SXM"),
    _Published(r"NVIDIA H100 PCIe", 756, 51, 2.0, "NVIDIA H100 data sheet, PCIe"),
    _Published(r"NVIDIA B200", 2250, 75, 8.0, "NVIDIA HGX B200 data sheet, an eighth of it"),
    _Published(r"(NVIDIA )?A100-SXM4-80GB", 312, 19.5, 2.039, "NVIDIA A100 80GB data sheet, SXM"),
    _Published(r"(NVIDIA )?A100-SXM4-40GB", 312, 19.5, 1.555, "NVIDIA A100 40GB data sheet, SXM"),
    _Published(r"(NVIDIA )?A100-PCIE-40GB", 312, 19.5, 1.555, "NVIDIA A100 40GB data sheet, PCIe"),
    _Published(r"NVIDIA A100 80GB PCIe", 312, 19.5, 1.935, "NVIDIA A100 80GB data sheet, PCIe"),
    _Published(r"NVIDIA L40S", 362, 91.6, 0.864, "NVIDIA L40S data sheet"),
    _Published(r"NVIDIA L4", 121, 30.3, 0.3, "NVIDIA L4 data sheet"),
    _Published(r"NVIDIA A10", 125, 31.2, 0.6, "NVIDIA A10 data sheet"),
    _Published(r"Tesla T4", 65, 8.1, 0.32, "NVIDIA T4 data sheet", bfloat16=False),
    _Published(r"Tesla V100-SXM2-(16|32)GB", 125, 15.7, 0.9, "NVIDIA V100 data sheet", bfloat16=False),
)


def published(gpu: str) -> Peaks:
    """Of a GPU by its name; without figures where the name is not known, never those of a like one."""
    for known in _GPUS:
        if re.fullmatch(known.name, gpu):
            half = {"float16": known.half * _T} | ({"bfloat16": known.half * _T} if known.bfloat16 else {})
            operations = half | {"float32": known.single * _T}
            return Peaks(gpu, known.source, operations, known.bandwidth * _T)
    return Peaks(gpu)


# Of the products that are tried; the largest rate counts.
_SIDES = (768, 1536)
_COPIED = 256 * 2**20  # bytes: past every cache


def measured_on_cpu(threads: int | None = None) -> Peaks:
    """Of this CPU, with so many threads as the program had; takes about a second.

    A rate that the CPU could beat with other sizes is no peak in the data sheet's sense, but what its matrix
    products and its copies reach here.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        operations = {}
        for dtype in (torch.float32, torch.bfloat16):
            operations[str(dtype).removeprefix("torch.")] = max(
                2 * side**3 / _best(_product(side, dtype)) for side in _SIDES
            )
        source = torch.ones(_COPIED, dtype=torch.uint8)
        target = torch.empty_like(source)
        bandwidth = 2 * _COPIED / _best(lambda: target.copy_(source))
    finally:
        torch.set_num_threads(before)
    return Peaks("cpu", "measured here, after the run", operations, bandwidth)


def _product(side: int, dtype: object) -> Callable[[], object]:
    import torch

    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))  # type: ignore[call-overload]
    return lambda: a @ b


def _best(call: Callable[[], object], tries: int = 4) -> float:
    """Seconds of the fastest of a few calls: what disturbs only makes them longer."""
    call()
    taken = []
    for _ in range(tries):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)
