"""A stand-in for the module `pynvml`: GPUs whose answers, refusals and losses a test sets.

Names, structures and codes are pynvml's. What a GPU answers follows NVML's documentation and what is reported
of drivers, virtual GPUs and MIG instances; none of it was recorded from a GPU.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

# Of pynvml itself: error class, codes and constants; nothing of it needs a driver.
_TAKEN = ("NVML_", "nvmlClocks", "NVMLError")


class Fake:
    """The module.

    Attributes:
        calls: how often each function was called.
        driver: a code with which `nvmlInit` fails.
    """

    def __init__(self, *gpus: FakeGpu, driver: int | None = None) -> None:
        self.gpus, self.driver, self.open = list(gpus), driver, 0
        self.calls: dict[str, int] = {}
        self.samples: dict[int, Any] = {}
        self._address = 0
        for name in dir(pynvml):
            if name.startswith(_TAKEN):
                setattr(self, name, getattr(pynvml, name))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("nvmlDeviceGet", "nvmlGpm")) or not hasattr(pynvml, name):
            raise AttributeError(name)

        def call(device: Any, *rest: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return device.answer(name, *rest)

        return call

    def nvmlInit(self) -> None:
        if self.driver is not None:
            raise pynvml.NVMLError(self.driver)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "575.57.08"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self.gpus[index]

    # GPM's samples are pointers to something opaque, and the structure that takes them is pynvml's own.

    def c_nvmlGpmMetricsGet_t(self) -> Any:
        return pynvml.c_nvmlGpmMetricsGet_t()

    def nvmlGpmSampleAlloc(self) -> Any:
        self._address += 64
        self.samples[self._address] = None
        return ctypes.cast(ctypes.c_void_p(self._address), pynvml.c_nvmlGpmSample_t)

    def nvmlGpmSampleFree(self, sample: Any) -> None:
        del self.samples[_address(sample)]

    def nvmlGpmSampleGet(self, gpu: FakeGpu, sample: Any) -> None:
        gpu.answer("nvmlGpmSampleGet")
        self.samples[_address(sample)] = (gpu, None)

    def nvmlGpmMigSampleGet(self, gpu: FakeGpu, instance: int, sample: Any) -> None:
        gpu.answer("nvmlGpmMigSampleGet")
        self.samples[_address(sample)] = (gpu, instance)

    def nvmlGpmMetricsGet(self, asked: Any) -> None:
        assert asked.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        earlier, later = _address(asked.sample1), _address(asked.sample2)
        assert earlier != later
        assert self.samples[earlier] == self.samples[later]
        gpu, _ = self.samples[later]
        gpu.answer("nvmlGpmMetricsGet")
        for metric in asked.metrics[: asked.numMetrics]:
            value = gpu.metrics.get(metric.metricId)
            metric.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED if value is None else pynvml.NVML_SUCCESS
            metric.value = 0.0 if value is None else value


def _address(sample: Any) -> int:
    return ctypes.cast(sample, ctypes.c_void_p).value or 0


@dataclass
class FakeGpu:
    """Args:
    answers: by function.
    refuse: by function the code of its error.
    metrics: GPM's, by number, in percent and MiB/s.
    """

    uuid: str = "GPU-00000000-1111-2222-3333-444444444444"
    name: str = "NVIDIA H100 80GB HBM3"
    answers: dict[str, Any] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    metrics: dict[int, float] = field(default_factory=dict)
    instances: list[FakeGpu] = field(default_factory=list)
    instance: int = 0
    lost: bool = False

    def answer(self, name: str, *rest: Any) -> Any:
        if self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if name in self.refuse:
            raise pynvml.NVMLError(self.refuse[name])
        given = self.answers.get(name, _HEALTHY.get(name))
        return given(self, *rest) if callable(given) else given


def _mig_handle(gpu: FakeGpu, place: int) -> FakeGpu:
    if place >= len(gpu.instances):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    return gpu.instances[place]


_HEALTHY: dict[str, Any] = {
    "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
    "nvmlDeviceGetName": lambda gpu: gpu.name,
    "nvmlDeviceGetMigMode": lambda gpu: [int(bool(gpu.instances)), int(bool(gpu.instances))],
    "nvmlDeviceGetMaxMigDeviceCount": 7,
    "nvmlDeviceGetMigDeviceHandleByIndex": _mig_handle,
    "nvmlDeviceGetGpuInstanceId": lambda gpu: gpu.instance,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 2**30, used=30 * 2**30, free=50 * 2**30),
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93, memory=41),
    "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [],
    "nvmlDeviceGetPowerUsage": 512_300,
    "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
    "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1755, 2: 2619}[kind],
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetDecoderUtilization": [0, 16_666],
    "nvmlDeviceGetJpgUtilization": [37, 16_666],
    "nvmlDeviceGetPcieThroughput": lambda gpu, way: 1_000_000,
    "nvmlGpmQueryDeviceSupport": SimpleNamespace(version=1, isSupportedDevice=1),
}

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION


def h100(**changed: Any) -> FakeGpu:
    """A healthy H100: GPM answers; bytes on PCIe are not counted by field."""
    metrics = {
        pynvml.NVML_GPM_METRIC_SM_UTIL: 88.0,
        pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: 35.0,
        pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: 41.0,
        pynvml.NVML_GPM_METRIC_FP32_UTIL: 9.0,
        pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: 60.0,
        pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: 1024.0,
        pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: 16.0,
        pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC: 0.0,
        pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC: 0.0,
    }
    return FakeGpu(**{"metrics": metrics, "refuse": {"nvmlDeviceGetFieldValues": NOT_SUPPORTED}} | changed)


def a100(**changed: Any) -> FakeGpu:
    """Without GPM; PCIe is told by the slow question alone."""
    support = {"nvmlGpmQueryDeviceSupport": SimpleNamespace(version=1, isSupportedDevice=0)}
    refuse = {"nvmlDeviceGetFieldValues": NOT_SUPPORTED}
    named: dict[str, Any] = {"name": "NVIDIA A100-SXM4-80GB", "answers": support, "refuse": refuse}
    return FakeGpu(**named | changed)


def virtual(**changed: Any) -> FakeGpu:
    """A virtual GPU that says it has GPM and has not, and tells neither power nor clocks."""
    refused = (
        *("nvmlGpmSampleGet", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"),
        *("nvmlDeviceGetTemperature", "nvmlDeviceGetFieldValues", "nvmlDeviceGetPcieThroughput"),
    )
    return h100(**{"name": "GRID H100-40C", "refuse": dict.fromkeys(refused, NOT_SUPPORTED)} | changed)
