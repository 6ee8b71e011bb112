"""The GPUs that a program uses, by NVML (package nvidia-ml-py)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from imagen_fast.profiling.device import Device, Values, reason
from imagen_fast.profiling.visible import choose

_WHY_NONE = {
    "LIBRARY_NOT_FOUND": "there is no NVIDIA driver here",
    "DRIVER_NOT_LOADED": "the NVIDIA driver is installed, but not loaded",
    "NO_PERMISSION": "this user may not use the NVIDIA driver",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA driver and its library differ in version: restart the machine",
}


class Gpus:
    """In CUDA's order.

    Args:
        environment: the program's, for CUDA_VISIBLE_DEVICES.
        nvml: the module `pynvml`, or what stands for it.

    Attributes:
        absent: `gpus` and why there is none here, or why their choice is in doubt.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, nvml: Any = None) -> None:
        self.devices: list[Device] = []
        self.absent: dict[str, str] = {}
        self._nvml: Any = None
        try:
            nvml = importlib.import_module("pynvml") if nvml is None else nvml
        except ImportError:
            self.absent["gpus"] = "nvidia-ml-py is not installed"
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.absent["gpus"] = reason(nvml, error, _WHY_NONE)
            return
        self._nvml = nvml
        self._choose(environment)

    def read(self, pids: set[int]) -> list[Values]:
        """Of each device; `pids` are the program's processes."""
        return [device.read(pids) for device in self.devices]

    def close(self) -> None:
        if self._nvml is None:
            return
        for device in self.devices:
            device.close()
        self._nvml.nvmlShutdown()
        self._nvml = None

    def _choose(self, environment: Mapping[str, str]) -> None:
        nvml = self._nvml
        handles = self._handles()
        own = [whole if instance is None else instance for _, whole, instance in handles]
        uuids, names = map(nvml.nvmlDeviceGetUUID, own), map(nvml.nvmlDeviceGetName, own)
        chosen = choose(list(uuids), list(names), environment)
        if not handles:
            self.absent.setdefault("gpus", "the NVIDIA driver finds no GPU")
        elif not chosen.places:
            self.absent["gpus"] = "CUDA_VISIBLE_DEVICES leaves the program no GPU"
        elif chosen.doubt is not None:
            self.absent["gpus"] = chosen.doubt
        for place in chosen.places:
            index, whole, instance = handles[place]
            self.devices.append(Device(nvml, index, whole, instance))

    def _handles(self) -> list[tuple[int, Any, Any]]:
        """Each GPU's number and handle, with a MIG instance's handle, of which a divided GPU has several."""
        nvml = self._nvml
        found: list[tuple[int, Any, Any]] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                whole = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceGetName(whole)
            except nvml.NVMLError as error:
                # One that is lost, or that this container may not use, leaves the others as they are.
                self.absent["gpus"] = f"GPU {index}: {reason(nvml, error)}"
                continue
            # CUDA sees the instances of a divided GPU, and no more the GPU.
            found += [(index, whole, instance) for instance in _instances(nvml, whole) or [None]]
        return found


def _instances(nvml: Any, whole: Any) -> list[Any]:
    """The MIG instances of a GPU; none where it is not divided."""
    try:
        if not nvml.nvmlDeviceGetMigMode(whole)[0]:
            return []
        places = range(nvml.nvmlDeviceGetMaxMigDeviceCount(whole))
    except nvml.NVMLError:
        return []
    found = []
    for place in places:
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, place))
        except nvml.NVMLError:
            continue  # no instance takes this place
    return found
