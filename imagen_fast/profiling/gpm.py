"""What the units of a GPU do, by NVML's GPU performance monitoring (GPM): Hopper and later, without root.

Two readings of the counters make one value for the time between them. NVML says whether a device has this,
and some virtual GPUs say so wrongly: only what two readings really gave is trusted.
"""

from __future__ import annotations

import math
import time
from typing import Any

# By quantity: NVML's metric, and what its unit (percent, MiB/s) is in ours.
METRICS = {
    "sm_active": ("NVML_GPM_METRIC_SM_UTIL", 0.01),
    "sm_occupancy": ("NVML_GPM_METRIC_SM_OCCUPANCY", 0.01),
    "tensor_active": ("NVML_GPM_METRIC_ANY_TENSOR_UTIL", 0.01),
    "fp32_active": ("NVML_GPM_METRIC_FP32_UTIL", 0.01),
    "dram_active": ("NVML_GPM_METRIC_DRAM_BW_UTIL", 0.01),
    "pcie_received": ("NVML_GPM_METRIC_PCIE_RX_PER_SEC", 2.0**20),
    "pcie_sent": ("NVML_GPM_METRIC_PCIE_TX_PER_SEC", 2.0**20),
    "nvlink_received": ("NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC", 2.0**20),
    "nvlink_sent": ("NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC", 2.0**20),
}
# Counters read again at once give nothing to divide by.
_APART = 0.1


class Activity:
    """The counters of one GPU, or of one MIG instance of it.

    Args:
        nvml: the module `pynvml`, or what stands for it.
        device: the whole GPU.
        instance: the number of the MIG GPU instance; None for the whole GPU.

    Raises:
        nvml.NVMLError: there is no GPM here.
    """

    def __init__(self, nvml: Any, device: Any, instance: int | None = None) -> None:
        self._nvml, self._device, self._instance = nvml, device, instance
        if not nvml.nvmlGpmQueryDeviceSupport(device).isSupportedDevice:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        self._samples: list[Any] = []
        try:
            for _ in range(2):
                self._samples.append(nvml.nvmlGpmSampleAlloc())
            self._take(self._samples[0])
        except nvml.NVMLError:
            self.close()
            raise
        self._taken = time.monotonic()

    def read(self) -> dict[str, float] | None:
        """The quantities that could be read, since the reading before; None where that is too short ago.

        Raises:
            nvml.NVMLError: nothing could be read.
        """
        now = time.monotonic()
        if now - self._taken < _APART:
            return None
        nvml = self._nvml
        earlier, later = self._samples
        self._take(later)
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(METRICS)
        asked.sample1, asked.sample2 = earlier, later
        for place, (metric, _) in enumerate(METRICS.values()):
            asked.metrics[place].metricId = getattr(nvml, metric)
        nvml.nvmlGpmMetricsGet(asked)
        self._samples, self._taken = [later, earlier], now
        values = {}
        for place, (name, (_, unit)) in enumerate(METRICS.items()):
            answer = asked.metrics[place]
            possible = math.isfinite(answer.value) and answer.value >= 0
            if answer.nvmlReturn == nvml.NVML_SUCCESS and possible:
                values[name] = answer.value * unit
        return values

    def close(self) -> None:
        for sample in self._samples:
            self._nvml.nvmlGpmSampleFree(sample)
        self._samples = []

    def _take(self, sample: Any) -> None:
        if self._instance is None:
            self._nvml.nvmlGpmSampleGet(self._device, sample)
        else:
            self._nvml.nvmlGpmMigSampleGet(self._device, self._instance, sample)
