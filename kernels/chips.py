"""Chips: what a multiprocessor holds, and the published peaks that bound a kernel's time from below."""

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536  # a multiprocessor, in every capability here
_REGISTERS_AT_ONCE = 256  # a warp's are taken in steps of this
_WARPS_AT_ONCE = 4  # one for each scheduler
_SHARED_AT_ONCE = 128
_SHARED_RESERVED = 1024  # a program, by the system


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

    shared: int  # bytes of all programs together
    shared_of_one: int  # bytes that one program may ask for
    warps: int = 64
    programs: int = 32


MULTIPROCESSORS = {
    80: Multiprocessor(164 * 1024, 163 * 1024),
    90: Multiprocessor(228 * 1024, 227 * 1024),
    100: Multiprocessor(228 * 1024, 227 * 1024),
}


@dataclass(frozen=True)
class Occupancy:
    """Programs and warps that one multiprocessor holds at a time, and what keeps out more."""

    programs: int
    warps: int
    limit: str


def occupancy(registers: int, warps: int, shared: int, capability: int) -> Occupancy:
    """Of programs of ``warps`` warps with ``registers`` a thread and ``shared`` bytes each."""
    holds = MULTIPROCESSORS[capability]
    of_a_warp = _whole(registers * WARP, _REGISTERS_AT_ONCE)
    fit = {
        "registers": REGISTERS // of_a_warp // _WARPS_AT_ONCE * _WARPS_AT_ONCE // warps,
        "shared": holds.shared // _whole(shared + _SHARED_RESERVED, _SHARED_AT_ONCE),
        "warps": min(holds.warps // warps, holds.programs),
    }
    limit = min(fit, key=lambda name: fit[name])
    return Occupancy(fit[limit], fit[limit] * warps, limit)


def _whole(size: int, step: int) -> int:
    return (size + step - 1) // step * step


@dataclass(frozen=True)
class Chip:
    """Published peaks, dense: bytes and operations a second."""

    name: str
    capability: int
    multiprocessors: int
    clock: float  # Hz; that at which the tensor cores reach their published peak
    bandwidth: float
    half: float  # bf16 and fp16 on tensor cores
    single: float  # fp32
    source: str

    @property
    def exponentials(self) -> float:
        """A second: 16 a clock and multiprocessor (CUDA C++ Programming Guide, "Arithmetic Instructions")."""
        return 16 * self.multiprocessors * self.clock


CHIPS = (
    Chip("A100 80GB", 80, 108, 1.41e9, 2.039e12, 312e12, 19.5e12, "NVIDIA A100 80GB SXM data sheet"),
    Chip("H100 SXM", 90, 132, 1.83e9, 3.35e12, 989.4e12, 66.9e12, "NVIDIA H100 SXM5 data sheet"),
    Chip("H200", 90, 132, 1.83e9, 4.8e12, 989.4e12, 66.9e12, "NVIDIA H200 SXM data sheet"),
    Chip("B200", 100, 148, 1.856e9, 8e12, 2250e12, 75e12, "NVIDIA HGX B200 data sheet, an eighth of it"),
)
