"""What this machine can do at most, measured: bytes, operations of matrix products and exponentials a second.

A pass cannot end before the slowest of the three has done its least work (see `work.py`): that time is its
roofline, and its share of the time measured says how near an implementation is. As the three are taken to
overlap fully, which on a CPU products and exponentials do not, 100% cannot always be reached.

Bandwidth is measured over data of many sizes. Of a pass it is that of data no larger than its own, since they
may lie in a cache when the pass begins; on a GPU whose cache is emptied before each call, that of memory.
Where a result is faster than its roofline, one of them is wrong: it has no share, but the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from imagen_fast import native
from imagen_fast.benchmarks import cuda_graph
from imagen_fast.benchmarks.machine import memory_bytes
from imagen_fast.kernels import launch
from imagen_fast.kernels.cost import Work, least_time_at

Roofline = dict[str, Any]

# Bytes of the buffers together, each twice the last: from what a core's own cache holds to far past the last
# level of any, and at least LARGEST.
SMALLEST, LARGEST = 2**18, {"cpu": 2**28, "cuda": 2**31}
CACHES = 4

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
SLOW = 0.2  # seconds of a product, after which no larger one is tried

# Numbers that a thread's nearest cache holds, with their powers; how often over in one call.
AT_HAND, REPEATS = 2048, 500

# Seconds for each kind and size, and what a single timing takes at least.
BUDGET, LEAST = 0.03, 1e-3

HOW = {
    "bandwidth": "the fastest timing of a sum, a dot product, a copy and y = a + b / 2 over buffers of so "
    "many bytes together, read and written bytes both counted",
    "operations": "the fastest timing of a square torch.mm of each type, 2 n^3 operations; of a half type "
    "that of fp32 where it is faster",
    "exponentials": {
        "cpu": "the fastest of the CPU kernels' own 2^x (for half types to bf16's precision) and torch.exp, "
        "of numbers in the nearest cache, on all threads",
        "cuda": "a Triton kernel that makes powers of two in registers",
    },
}


def measure(device: torch.device) -> Roofline:
    """Of this machine with as many threads as this process has; some seconds, once in a process."""
    return _measured(device.type, torch.get_num_threads())


@cache
def _measured(kind: str, threads: int) -> Roofline:
    began = time.perf_counter()
    found = {
        "bandwidth": list(_bandwidths(kind)),
        "operations": _operations(kind),
        "exponentials": _exponentials(kind, threads),
    }
    if kind == "cuda":
        torch.cuda.empty_cache()
    return {
        "device": kind,
        "threads": threads,
        **found,
        "how": {**HOW, "exponentials": HOW["exponentials"][kind]},
        "seconds": time.perf_counter() - began,
    }


# --- how near a result is -----------------------------------------------------------------------------


def nearness(
    facts: dict[str, Any], median: float | None, cold: bool, roofline: Roofline | None
) -> dict[str, Any]:
    """What a record says of a result whose contender has stated its work, see `work.stated`; else nulls.

    Args:
        cold: on a GPU, whether its cache was emptied before each call.
    """
    least = roofline and least_seconds(facts, cold, roofline)
    if not least:
        return {"roofline_seconds": None, "bound": None, "percent_of_roofline": None, "refused": None}
    seconds, bound = least
    percent = None if median is None else 100 * seconds / median
    refused = None
    if percent is not None and percent > 100:
        refused = f"{percent:.0f}% of the roofline: {_WRONG[bound]}"
        percent = None
    return {"roofline_seconds": seconds, "bound": bound, "percent_of_roofline": percent, "refused": refused}


_WRONG = {
    "memory": "its data lay in a nearer cache than so many do, or the bytes or the bandwidth are wrong",
    "matrix": "the operations stated or their measured rate are wrong",
    "exp": "the exponentials stated or their measured rate are wrong",
}


def least_seconds(facts: dict[str, Any], cold: bool, roofline: Roofline) -> tuple[float, str] | None:
    """The least time of a pass, and whether `memory`, `matrix` or `exp` sets it; None of unknown work."""
    if facts.get("operations") is None:
        return None
    rates = {
        "memory": bandwidth(roofline, None if cold and roofline["device"] == "cuda" else facts["footprint"]),
        "matrix": roofline["operations"][facts["products_in"]],
        "exp": roofline["exponentials"][facts["products_in"]] or math.inf,
    }
    return least_time_at(Work(facts["bytes"], facts["operations"], facts["exponentials"]), rates)


def bandwidth(roofline: Roofline, footprint: int | None = None) -> float:
    """Bytes a second of data of this size, or of memory where none is given.

    Of the next smaller size that was measured, or of any larger one where that was faster: the caches that
    hold more hold less too.
    """
    sizes = sorted(roofline["bandwidth"], key=lambda entry: entry["bytes"])
    no_larger = [i for i, entry in enumerate(sizes) if footprint is None or entry["bytes"] <= footprint]
    return max(entry["fastest"] for entry in sizes[no_larger[-1] if no_larger else 0 :])


def describe(roofline: Roofline) -> str:
    """One line for people."""
    near = max(entry["fastest"] for entry in roofline["bandwidth"])
    powers = max((rate for rate in roofline["exponentials"].values() if rate), default=None)
    parts = [
        f"{bandwidth(roofline) / 1e9:.3g} GB/s of memory and up to {near / 1e9:.3g} of caches",
        *(f"{_operations_text(rate)} in {name}" for name, rate in roofline["operations"].items()),
        f"{powers / 1e9:.3g}e9 exponentials/s" if powers else "exponentials not measured",
    ]
    return "Roofline, measured here: " + ", ".join(parts)


def _operations_text(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"


# --- measuring ----------------------------------------------------------------------------------------


def _fastest(call: Callable[[], object], kind: str, budget: float = BUDGET) -> float:
    """Seconds of one call, of the fastest of several timings within the budget."""
    call()
    _wait(kind)
    began = time.perf_counter()
    call()
    _wait(kind)
    together = max(1, round(LEAST / (time.perf_counter() - began)))

    def several() -> None:
        for _ in range(together):
            call()

    timed = several
    if kind == "cuda":
        timed, _ = cuda_graph.capture(several)  # without Python between
    timings: list[float] = []
    while len(timings) < 3 or sum(timings) < budget:
        timings.append(_time(timed, kind))
    return min(timings) / together


def _time(call: Callable[[], object], kind: str) -> float:
    if kind == "cpu":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def _bandwidths(kind: str) -> Iterator[dict[str, Any]]:
    size = SMALLEST
    while size <= _largest(kind):
        rates = {
            name: moved / _fastest(call, kind) for name, (call, moved) in _movers(size // 4, kind).items()
        }
        yield {"bytes": size, **rates, "fastest": max(rates.values())}
        size *= 2


def _largest(kind: str) -> int:
    if kind == "cuda":
        return min(LARGEST[kind], torch.cuda.get_device_properties(0).total_memory // 8)
    wanted = max(LARGEST[kind], CACHES * (_last_level_cache() or 0))
    return min(wanted, (memory_bytes() or wanted * 8) // 8)


def _last_level_cache(cpus: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Bytes of all its parts together, each of which some of the processors share; as Linux tells them."""
    parts: dict[tuple[int, str], int] = {}
    for entry in cpus.glob("cpu[0-9]*/cache/index*"):
        told = [entry / name for name in ("level", "shared_cpu_list", "size")]
        if all(path.exists() for path in told):  # not every virtual machine tells them all
            level, shared, size = (path.read_text().strip() for path in told)
            parts[int(level), shared] = int(size.removesuffix("K")) * 1024
    last = max((level for level, _ in parts), default=None)
    return sum(size for (level, _), size in parts.items() if level == last) or None


def _movers(values: int, kind: str) -> dict[str, tuple[Callable[[], object], int]]:
    """Calls over so many float32 together, and the bytes that each moves."""
    # Filled by the threads that will read it: memory lies near whoever touches it first.
    whole = torch.empty(values, device=kind).fill_(0.5)
    halves, thirds = whole[: values // 2 * 2].chunk(2), whole[: values // 3 * 3].chunk(3)
    return {
        "sum": (whole.sum, 4 * values),
        "dot": (partial(torch.dot, *halves), 8 * len(halves[0])),
        "copy": (partial(halves[0].copy_, halves[1]), 8 * len(halves[0])),
        "triad": (partial(torch.add, *thirds[:2], alpha=0.5, out=thirds[2]), 12 * len(thirds[0])),
    }


def _operations(kind: str) -> dict[str, float]:
    """By type; on a GPU `fp32` is without TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        found = {name: _product_rate(dtype, kind) for name, dtype in TYPES.items()}
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    # Where a CPU only imitates a half type, whoever widens it first is faster than its product.
    return {name: max(rate, found["fp32"]) for name, rate in found.items()}


def _product_rate(dtype: torch.dtype, kind: str) -> float:
    rates = []
    for side in SIDES[kind]:
        a, b = (torch.randn(side, side, device=kind).to(dtype) for _ in range(2))
        seconds = _fastest(partial(torch.mm, a, b, out=torch.empty_like(a)), kind, 5 * BUDGET)
        rates.append(2 * side**3 / seconds)
        if seconds > SLOW / 8:  # the next has eight times the work
            break
    return max(rates)


def _exponentials(kind: str, threads: int) -> dict[str, float | None]:
    """By the type of the products beside them; None where nothing here can make them often enough."""
    if kind == "cuda":
        if not launch.INSTALLED:
            return dict.fromkeys(TYPES, None)
        from imagen_fast.benchmarks import exponential_rate

        y = exponential_rate.output(torch.device(kind))
        made = exponential_rate.launch(y)
        return dict.fromkeys(TYPES, made / _fastest(partial(exponential_rate.launch, y), kind))
    x = torch.linspace(-20, 0, AT_HAND * threads)
    found: dict[str, float | None] = {}
    for name, dtype in TYPES.items():
        given = x.to(dtype)
        calls = [(partial(torch.exp, given, out=torch.empty_like(given)), len(x))]
        if native.available():
            own = partial(native.powers_of_two, x, name != "fp32", REPEATS)
            calls.append((own, REPEATS * len(x)))
        found[name] = max(made / _fastest(call, kind) for call, made in calls)
    return found
