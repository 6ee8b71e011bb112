"""What is sampled while a program runs: names, titles and units; one place for the samplers and the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """Args:
    unit: `share` is of 1; `cores` are processors kept busy; rates are per second.
    """

    title: str
    unit: str


# Of the program: its process and all that it started.
HOST = {
    "cpu": Quantity("CPU of the program", "cores"),
    "main_cpu": Quantity("CPU of its training processes", "cores"),
    "workers_cpu": Quantity("CPU of its other processes", "cores"),
    "workers_delayed": Quantity("its other processes that had no processor to run on", "cores"),
    "machine_cpu": Quantity("CPU of everything on the machine", "cores"),
    "memory": Quantity("memory of the program", "bytes"),
    "memory_available": Quantity("memory that is left", "bytes"),
    "read": Quantity("read from storage", "bytes/s"),
    "written": Quantity("written to storage", "bytes/s"),
    "received": Quantity("received from the network, by the machine", "bytes/s"),
    "sent": Quantity("sent to the network, by the machine", "bytes/s"),
    "in_storage": Quantity("its processes that wait in storage", "share"),
    "throttled": Quantity("time stopped by a CPU quota", "share"),
    "cpu_pressure": Quantity("time something waited for a processor", "share"),
    "io_pressure": Quantity("time something waited for storage", "share"),
    "memory_pressure": Quantity("time something waited for memory", "share"),
    "clock": Quantity("processor clock", "Hz"),
}

# Of one GPU, by NVML.
GPU = {
    "utilisation": Quantity("time a kernel ran", "share"),
    "memory": Quantity("memory used", "bytes"),
    "program_memory": Quantity("memory used by the program", "bytes"),
    "memory_controller": Quantity("time memory was read or written", "share"),
    "power": Quantity("power", "W"),
    "energy": Quantity("energy since the start", "J"),
    "sm_clock": Quantity("clock of the multiprocessors", "Hz"),
    "memory_clock": Quantity("clock of the memory", "Hz"),
    "temperature": Quantity("temperature", "°C"),
    "throttled": Quantity("slowed by power, heat or an operator", "share"),
    "pcie_received": Quantity("PCIe, to the GPU", "bytes/s"),
    "pcie_sent": Quantity("PCIe, from the GPU", "bytes/s"),
    "decoder": Quantity("video decoder", "share"),
    "jpeg": Quantity("JPEG engine", "share"),
    # By GPM, on Hopper and later.
    "sm_active": Quantity("multiprocessors with work", "share"),
    "sm_occupancy": Quantity("warps of those there is room for", "share"),
    "tensor_active": Quantity("tensor cores", "share"),
    "fp32_active": Quantity("fp32 units", "share"),
    "dram_active": Quantity("memory bandwidth", "share"),
    "nvlink_received": Quantity("NVLink, to the GPU", "bytes/s"),
    "nvlink_sent": Quantity("NVLink, from the GPU", "bytes/s"),
}
