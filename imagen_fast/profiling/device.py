"""One GPU, or one MIG instance of it, read by NVML and GPM.

What a driver, a virtual GPU or a container does not tell is found by asking once. It is then named in
`absent` with the reason and asked no more; so is what stops being told while the program runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from imagen_fast.profiling.gpm import METRICS, Activity
from imagen_fast.profiling.quantities import GPU
from imagen_fast.profiling.recording import Gpu, Series
from imagen_fast.profiling.seldom import Seldom

# NVML measures PCIe for 20 ms at each question, and waits for it.
_SHARE_FOR_PCIE = 0.005
# Zeros from GPM are believed of an idle GPU; of one that runs kernels, after so many readings, no more.
_BUSY = 0.2
_PATIENCE = 5
# An operator's clock slows a GPU where it takes a tenth or more; boards are sold with one a little lower.
_NEAR_MAXIMUM = 0.9

# The newer and the older name of the same bits.
_REASONS = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")
_IDLE = "GpuIdle"
_NO_REASONS = ("None", "All", "UserDefinedClocks")
_OPERATORS = ("ApplicationsClocksSetting", "DisplayClockSetting")

Values = dict[str, float | None]


@dataclass(frozen=True)
class _Question:
    """What one call of NVML answers.

    Args:
        ask: a value for each of `names`.
        of_whole: it is about the whole GPU and says nothing of one MIG instance.
    """

    names: tuple[str, ...]
    ask: Callable[[Device], tuple[float | None, ...]]
    of_whole: bool = False


class Device:
    """Args:
        nvml: the module `pynvml`, or what stands for it.
        whole: NVML's handle of the GPU.
        instance: NVML's handle of a MIG instance; None for the whole GPU.

    Attributes:
        absent: quantities that cannot be read, or no more, and why.

    Raises:
        nvml.NVMLError: it cannot be used at all.
    """

    def __init__(self, nvml: Any, index: int, whole: Any, instance: Any = None) -> None:
        self.nvml, self.index, self.whole = nvml, index, whole
        self.handle = whole if instance is None else instance
        self.divided = instance is not None
        self.uuid: str = nvml.nvmlDeviceGetUUID(self.handle)
        self.name: str = nvml.nvmlDeviceGetName(self.handle)
        self.pids: set[int] = set()
        self.pcie = Seldom(self._pcie_throughput, _SHARE_FOR_PCIE, cost=time.perf_counter)
        self.absent: dict[str, str] = {}
        self._facts = self._ask_facts()
        self._started = time.monotonic()
        self._reasons = _reason_bits(nvml)
        self._reasons_seen = dict.fromkeys(self._reasons, 0)
        self._reasons_read = 0
        self._energy_before: float | None = None
        self._energy = 0.0
        self._pcie_before: tuple[float, list[int]] | None = None
        self._zeros, self._trusted = 0, False
        self._distrusted: set[str] = set()
        self._questions: list[_Question] = []
        self._activity: Activity | None = None
        self._probe()

    def read(self, pids: set[int]) -> Values:
        """One value a quantity, None where it could not be read now.

        Args:
            pids: the program's processes.
        """
        self.pids = pids
        values: Values = {}
        for question in list(self._questions):
            try:
                values.update(zip(question.names, question.ask(self), strict=True))
            except self.nvml.NVMLError as error:
                self._failed(question, error)
        values |= self._read_activity()
        self._doubt_zeros(values)
        return values

    def recorded(self, series: Series) -> Gpu:
        """With what was read of it in `series`; a quantity that was never told has none."""
        told = {
            name: values
            for name, values in series.items()
            if name not in self._distrusted and any(value is not None for value in values)
        }
        missing = {name: "it was not told so far" for name in GPU if name not in told}
        reasons = {name: seen / self._reasons_read for name, seen in self._reasons_seen.items() if seen}
        return Gpu(self.index, self.name, dict(self._facts), told, reasons, missing | self.absent)

    def close(self) -> None:
        if self._activity is not None:
            activity, self._activity = self._activity, None
            with suppress(self.nvml.NVMLError):  # of a GPU that is lost there is nothing to free
                activity.close()

    def _probe(self) -> None:
        """Ask everything once, and keep what is answered."""
        for question in _QUESTIONS:
            if self._asked() & set(question.names):
                continue  # another way to learn the same
            if self.divided and question.of_whole:
                why = "NVML tells it only of the whole GPU, of which this is one MIG instance"
                self.absent |= dict.fromkeys(question.names, why)
                continue
            try:
                question.ask(self)
            except self.nvml.NVMLError as error:
                self.absent |= dict.fromkeys(question.names, reason(self.nvml, error))
                continue
            self._questions.append(question)
            for name in question.names:
                self.absent.pop(name, None)
        try:
            instance = self.nvml.nvmlDeviceGetGpuInstanceId(self.handle) if self.divided else None
            self._activity = Activity(self.nvml, self.whole, instance)
        except self.nvml.NVMLError as error:
            self._without_activity(reason(self.nvml, error))

    def _asked(self) -> set[str]:
        return {name for question in self._questions for name in question.names}

    def _failed(self, question: _Question, error: Exception) -> None:
        """Only what may be told again is asked again."""
        if _is(self.nvml, error, *_LOST):
            why = self._since(reason(self.nvml, error))
            self.absent |= dict.fromkeys(self._asked(), why)
            self._questions = []
            self._without_activity(why)
        elif _is(self.nvml, error, *_IN_VAIN) and question in self._questions:
            self._questions.remove(question)
            self.absent |= dict.fromkeys(question.names, self._since(reason(self.nvml, error)))

    def _read_activity(self) -> Values:
        if self._activity is None:
            return {}
        try:
            values = self._activity.read()
        except self.nvml.NVMLError as error:
            if _is(self.nvml, error, *_LOST, *_IN_VAIN):
                self._without_activity(self._since(reason(self.nvml, error)))
            return {}
        if values is None:
            return {}
        if not values:
            self._without_activity("GPM is there, but tells nothing")
            return {}
        for name in METRICS.keys() - values.keys() - self._asked():
            self.absent.setdefault(name, "GPM does not tell it of this GPU")
        for name in values:
            self.absent.pop(name, None)
        # PCIe need then not be asked in NVML's slower way.
        self._questions = [each for each in self._questions if not set(each.names) <= values.keys()]
        return {**values}

    def _doubt_zeros(self, values: Values) -> None:
        if values.get("sm_active"):
            self._trusted = True
        elif values.get("sm_active") == 0 and (values.get("utilisation") or 0.0) > _BUSY:
            self._zeros += 1
            if self._zeros >= _PATIENCE and not self._trusted:
                self._distrusted = METRICS.keys() - self._asked()
                self._without_activity("GPM answers, but with zeros only while kernels run")

    def _without_activity(self, why: str) -> None:
        self.close()
        self.absent |= dict.fromkeys(METRICS.keys() - self._asked(), why)

    def _since(self, why: str) -> str:
        return f"{why}, since {time.monotonic() - self._started:.0f} s after the start"

    def _ask_facts(self) -> dict[str, Any]:
        nvml, whole = self.nvml, self.whole
        ask: dict[str, Callable[[], Any]] = {
            "memory_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(self.handle).total),
            "power_limit": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(whole) / 1e3,
            "max_sm_clock": lambda: nvml.nvmlDeviceGetMaxClockInfo(whole, nvml.NVML_CLOCK_SM) * 1e6,
            "compute_capability": lambda: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(whole))),
            "pcie_generation": lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(whole),
            "pcie_width": lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(whole),
            "driver": lambda: str(nvml.nvmlSystemGetDriverVersion()),
        }
        facts: dict[str, Any] = {"uuid": self.uuid, "mig": self.divided}
        for name, answer in ask.items():
            try:
                facts[name] = answer()
            except nvml.NVMLError:
                facts[name] = None
        return facts

    def utilisation(self) -> tuple[float, float]:
        rates = self.nvml.nvmlDeviceGetUtilizationRates(self.handle)
        return rates.gpu / 100, rates.memory / 100

    def program_memory(self) -> tuple[float | None]:
        listed = self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        used = [process.usedGpuMemory for process in listed if process.pid in self.pids]
        # In a container the driver may list processes by numbers that are the host's.
        foreign = not used and any(not psutil.pid_exists(process.pid) for process in listed)
        return (None if foreign or None in used else float(sum(used)),)

    def energy(self) -> tuple[float]:
        """Joules since the first reading; the counter of a driver that was loaded again begins at 0."""
        now = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.whole) / 1e3
        if self._energy_before is not None:
            self._energy += now - self._energy_before if now >= self._energy_before else now
        self._energy_before = now
        return (self._energy,)

    def throttled(self) -> tuple[float]:
        """1 where something takes clock away from a GPU that has work."""
        bits = self._active_reasons()
        active = [name for name, bit in self._reasons.items() if bits & bit]
        self._reasons_read += 1
        for name in active:
            self._reasons_seen[name] += 1
        slowing = [name for name in active if name not in _OPERATORS or self._far_from_maximum()]
        return (float(bool(slowing) and not bits & self._idle_bit()),)

    def pcie_counted(self) -> tuple[float | None, float | None]:
        """By counters of bytes, which newer GPUs have."""
        nvml = self.nvml
        wanted = [nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES]
        fields = nvml.nvmlDeviceGetFieldValues(self.whole, wanted)
        for field in fields:
            if field.nvmlReturn != nvml.NVML_SUCCESS:
                raise nvml.NVMLError(field.nvmlReturn)
        now, counts = time.monotonic(), [field.value.ullVal for field in fields]
        before, self._pcie_before = self._pcie_before, (now, counts)
        if before is None or now <= before[0]:
            return None, None
        received, sent = (
            # A counter that went round says nothing this time.
            (new - old) / (now - before[0]) if new >= old else None
            for new, old in zip(counts, before[1], strict=True)
        )
        return received, sent

    def _pcie_throughput(self) -> tuple[float, float]:
        nvml = self.nvml
        ways = (nvml.NVML_PCIE_UTIL_RX_BYTES, nvml.NVML_PCIE_UTIL_TX_BYTES)
        received, sent = (nvml.nvmlDeviceGetPcieThroughput(self.whole, way) * 1024.0 for way in ways)
        return received, sent

    def _active_reasons(self) -> int:
        nvml = self.nvml
        try:
            return nvml.nvmlDeviceGetCurrentClocksEventReasons(self.whole)
        except nvml.NVMLError as error:
            if not _is(nvml, error, "FUNCTION_NOT_FOUND"):
                raise
        # An older driver knows it by an older name.
        return nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.whole)

    def _idle_bit(self) -> int:
        bits = [getattr(self.nvml, prefix + _IDLE, 0) for prefix in _REASONS]
        return bits[0] | bits[1]

    def _far_from_maximum(self) -> bool:
        most = self._facts["max_sm_clock"]
        return most is not None and _clock("NVML_CLOCK_SM")(self)[0] < _NEAR_MAXIMUM * most


def _clock(kind: str) -> Callable[[Device], tuple[float]]:
    return lambda d: (d.nvml.nvmlDeviceGetClockInfo(d.whole, getattr(d.nvml, kind)) * 1e6,)


def _temperature(d: Device) -> tuple[float]:
    return (float(d.nvml.nvmlDeviceGetTemperature(d.whole, d.nvml.NVML_TEMPERATURE_GPU)),)


# Of two for the same quantities the first that is answered serves.
_QUESTIONS = (
    _Question(("utilisation", "memory_controller"), Device.utilisation),
    _Question(("memory",), lambda d: (float(d.nvml.nvmlDeviceGetMemoryInfo(d.handle).used),)),
    _Question(("program_memory",), Device.program_memory),
    _Question(("power",), lambda d: (d.nvml.nvmlDeviceGetPowerUsage(d.whole) / 1e3,), of_whole=True),
    _Question(("energy",), Device.energy, of_whole=True),
    _Question(("sm_clock",), _clock("NVML_CLOCK_SM")),
    _Question(("memory_clock",), _clock("NVML_CLOCK_MEM")),
    _Question(("temperature",), _temperature),
    _Question(("throttled",), Device.throttled),
    _Question(("pcie_received", "pcie_sent"), Device.pcie_counted, of_whole=True),
    _Question(("pcie_received", "pcie_sent"), lambda d: d.pcie(), of_whole=True),
    _Question(("decoder",), lambda d: (d.nvml.nvmlDeviceGetDecoderUtilization(d.handle)[0] / 100,)),
    _Question(("jpeg",), lambda d: (d.nvml.nvmlDeviceGetJpgUtilization(d.handle)[0] / 100,)),
)

_LOST = ("GPU_IS_LOST", "RESET_REQUIRED", "UNINITIALIZED")
# After these the answer stays the same; after others, such as a timeout, it may come the next time.
_IN_VAIN = (
    *("NOT_SUPPORTED", "NO_PERMISSION", "FUNCTION_NOT_FOUND", "INVALID_ARGUMENT", "DEPRECATED"),
    *("ARGUMENT_VERSION_MISMATCH", "NOT_FOUND"),
)
_SENTENCES = {
    "NOT_SUPPORTED": "this GPU, or its virtual form, does not tell it",
    "NO_PERMISSION": "this user may not read it",
    "FUNCTION_NOT_FOUND": "the driver is too old to tell it",
    "GPU_IS_LOST": "the GPU was lost",
    "RESET_REQUIRED": "the GPU must be reset",
}


def reason(nvml: Any, error: Exception, sentences: dict[str, str] = _SENTENCES) -> str:
    """What an error of NVML means to the reader of a report."""
    for name, sentence in sentences.items():
        if _is(nvml, error, name):
            return sentence
    return f"NVML says: {error}"


def _is(nvml: Any, error: Any, *names: str) -> bool:
    return error.value in [getattr(nvml, f"NVML_ERROR_{name}", None) for name in names]


def _reason_bits(nvml: Any) -> dict[str, int]:
    """By NVML's name the bit of each reason for a lower clock; the newer names where there are both."""
    return {name: bit for prefix in reversed(_REASONS) for name, bit in _bits(nvml, prefix)}


def _bits(nvml: Any, prefix: str) -> Iterable[tuple[str, int]]:
    for name in dir(nvml):
        short = name.removeprefix(prefix)
        if short != name and short not in (*_NO_REASONS, _IDLE):
            yield short, getattr(nvml, name)
