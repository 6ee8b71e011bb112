"""GPUs as NVML and GPM tell them: healthy ones, and those that refuse, lie or go away."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import psutil
import pynvml
import pytest
from fake_nvml import NO_PERMISSION, NOT_SUPPORTED, Fake, FakeGpu, a100, h100, virtual

from imagen_fast.profiling import device, gpm
from imagen_fast.profiling.nvml import Gpus
from imagen_fast.profiling.quantities import GPU


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Half a second passes between any two looks at the clock."""
    ticks = itertools.count(step=0.5)
    fake = SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=lambda: next(ticks))
    monkeypatch.setattr(gpm, "time", fake)
    monkeypatch.setattr(device, "time", fake)


def opened(*gpus, **given):
    nvml = Fake(*gpus)
    return nvml, Gpus(given.pop("environment", {}), nvml)


def recorded(gpus, readings):
    """As the sampler puts readings into series."""
    return [
        each.recorded({name: [read[place].get(name) for read in readings] for name in GPU})
        for place, each in enumerate(gpus.devices)
    ]


def test_a_healthy_h100_tells_everything():
    nvml, gpus = opened(h100())
    readings = [gpus.read(set()) for _ in range(3)]
    gpu = recorded(gpus, readings)[0]
    last = readings[-1][0]
    assert last == pytest.approx(
        {
            "utilisation": 0.93,
            "memory_controller": 0.41,
            "memory": 30 * 2**30,
            "program_memory": 0,
            "power": 512.3,
            "energy": 0,
            "sm_clock": 1755e6,
            "memory_clock": 2619e6,
            "temperature": 61,
            "throttled": 0,
            "decoder": 0,
            "jpeg": 0.37,
            "sm_active": 0.88,
            "sm_occupancy": 0.35,
            "tensor_active": 0.41,
            "fp32_active": 0.09,
            "dram_active": 0.6,
            "pcie_received": 2**30,
            "pcie_sent": 2**24,
            "nvlink_received": 0,
            "nvlink_sent": 0,
        }
    )
    assert last.keys() == GPU.keys()
    assert gpu.absent == {}
    assert gpu.facts["memory_bytes"] == 80 * 2**30
    assert gpu.facts["power_limit"] == 700
    assert gpu.facts["compute_capability"] == "9.0"
    gpus.close()
    assert nvml.open == 0
    assert nvml.samples == {}


def test_without_gpm_the_rest_is_told_and_pcie_by_the_slow_question():
    nvml, gpus = opened(a100())
    readings = [gpus.read(set()) for _ in range(50)]
    gpu = recorded(gpus, readings)[0]
    assert gpu.absent.keys() == gpm.METRICS.keys() - {"pcie_received", "pcie_sent"}
    assert gpu.absent["sm_active"] == "this GPU, or its virtual form, does not tell it"
    assert gpu.series["pcie_received"][-1] == 1_024_000_000
    # It takes 20 ms each time: most readings repeat what it said before.
    assert 2 <= nvml.calls["nvmlDeviceGetPcieThroughput"] < 10


def test_a_virtual_gpu_whose_flag_lies_is_not_believed():
    _, gpus = opened(virtual())
    gpu = recorded(gpus, [gpus.read(set()) for _ in range(3)])[0]
    assert {"power", "energy", "temperature", "sm_active", "tensor_active", "pcie_sent"} <= gpu.absent.keys()
    assert not gpu.series.keys() & gpu.absent.keys()
    assert gpu.series["utilisation"] == [0.93] * 3


def test_gpm_that_answers_with_zeros_while_kernels_run_is_not_believed():
    nvml, gpus = opened(h100(metrics=dict.fromkeys(h100().metrics, 0.0)))
    gpu = recorded(gpus, [gpus.read(set()) for _ in range(10)])[0]
    assert "zeros only" in gpu.absent["sm_active"]
    assert "sm_active" not in gpu.series
    assert nvml.samples == {}


def test_zeros_are_believed_of_an_idle_gpu():
    idle = {"nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0, memory=0)}
    _, gpus = opened(h100(metrics=dict.fromkeys(h100().metrics, 0.0), answers=idle))
    gpu = recorded(gpus, [gpus.read(set()) for _ in range(10)])[0]
    assert gpu.series["sm_active"][1:] == [0.0] * 9


def test_a_metric_that_gpm_lacks_leaves_the_others():
    card = h100()
    del card.metrics[pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC]
    card.metrics[pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC] = float("nan")
    _, gpus = opened(card)
    gpu = recorded(gpus, [gpus.read(set()) for _ in range(3)])[0]
    assert gpu.absent == dict.fromkeys(("nvlink_received", "nvlink_sent"), "GPM does not tell it of this GPU")


def test_permission_that_is_lost_on_the_way_ends_a_quantity_with_its_reason():
    card = h100()
    _, gpus = opened(card)
    readings = [gpus.read(set())]
    card.refuse |= {"nvmlDeviceGetPowerUsage": NO_PERMISSION, "nvmlGpmSampleGet": NO_PERMISSION}
    readings += [gpus.read(set()) for _ in range(2)]
    card.refuse.clear()
    readings += [gpus.read(set())]
    gpu = recorded(gpus, readings)[0]
    assert gpu.series["power"] == [512.3, None, None, None]
    assert gpu.series["sm_active"] == [0.88, None, None, None]
    assert gpu.series["temperature"] == [61] * 4
    assert gpu.absent["power"].startswith("this user may not read it, since ")
    assert gpu.absent["tensor_active"].startswith("this user may not read it, since ")


def test_a_passing_error_costs_one_sample_only():
    card = h100()
    _, gpus = opened(card)
    readings = [gpus.read(set())]
    card.refuse["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_TIMEOUT
    readings += [gpus.read(set())]
    del card.refuse["nvmlDeviceGetPowerUsage"]
    readings += [gpus.read(set())]
    gpu = recorded(gpus, readings)[0]
    assert gpu.series["power"] == [512.3, None, 512.3]
    assert "power" not in gpu.absent


def test_a_gpu_that_is_lost_keeps_what_it_told_and_ends_no_other():
    first, second = h100(), h100(uuid="GPU-other")
    _, gpus = opened(first, second)
    readings = [gpus.read(set()) for _ in range(2)]
    first.lost = True
    readings += [gpus.read(set()) for _ in range(2)]
    lost, kept = recorded(gpus, readings)
    assert lost.series["utilisation"] == [0.93, 0.93, None, None]
    assert lost.series["sm_active"] == [0.88, 0.88, None, None]
    assert lost.absent.keys() == GPU.keys()
    assert lost.absent["power"].startswith("the GPU was lost, since ")
    assert kept.series["utilisation"] == [0.93] * 4
    gpus.close()


def test_a_gpu_that_is_lost_before_the_start_leaves_the_others():
    _, gpus = opened(h100(lost=True), h100(uuid="GPU-other"))
    assert [each.index for each in gpus.devices] == [1]
    assert gpus.absent["gpus"] == "GPU 0: the GPU was lost"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "there is no NVIDIA driver here"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "installed, but not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart the machine"),
        (pynvml.NVML_ERROR_UNKNOWN, "NVML says: Unknown Error"),
    ],
)
def test_without_a_driver_there_is_a_reason(code, said):
    gpus = Gpus({}, Fake(driver=code))
    assert gpus.devices == []
    assert said in gpus.absent["gpus"]
    assert gpus.read(set()) == []
    gpus.close()


def test_a_driver_without_gpus():
    _, gpus = opened()
    assert gpus.absent["gpus"] == "the NVIDIA driver finds no GPU"


def bits(*names):
    return sum(getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names)


@pytest.mark.parametrize(
    ("active", "clock", "throttled"),
    [
        (bits("SwPowerCap"), 1755, 1),
        (bits("HwThermalSlowdown", "HwSlowdown"), 900, 1),
        (bits("GpuIdle"), 345, 0),
        # What holds down a clock that nobody needs slows nothing.
        (bits("GpuIdle", "SwPowerCap"), 345, 0),
        (bits("ApplicationsClocksSetting"), 1900, 0),
        (bits("ApplicationsClocksSetting"), 1200, 1),
        (0, 1980, 0),
    ],
)
def test_what_counts_as_throttled(active, clock, throttled):
    answers = {
        "nvmlDeviceGetCurrentClocksEventReasons": active,
        "nvmlDeviceGetClockInfo": lambda gpu, kind: clock,
    }
    _, gpus = opened(h100(answers=answers))
    assert gpus.read(set())[0]["throttled"] == throttled


def test_reasons_have_nvmls_names_and_their_share_of_the_samples():
    card = h100(answers={"nvmlDeviceGetCurrentClocksEventReasons": bits("GpuIdle")})
    _, gpus = opened(card)  # the probe is a sample, too
    readings = [gpus.read(set())]
    card.answers["nvmlDeviceGetCurrentClocksEventReasons"] = bits("SwPowerCap", "HwThermalSlowdown")
    readings += [gpus.read(set()) for _ in range(2)]
    assert recorded(gpus, readings)[0].throttle_reasons == {"SwPowerCap": 0.5, "HwThermalSlowdown": 0.5}


def test_an_older_driver_tells_reasons_by_the_older_name():
    card = h100(answers={"nvmlDeviceGetCurrentClocksThrottleReasons": bits("SwPowerCap")})
    card.refuse["nvmlDeviceGetCurrentClocksEventReasons"] = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    _, gpus = opened(card)
    assert gpus.read(set())[0]["throttled"] == 1


def test_energy_counts_from_the_start_and_over_a_driver_that_begins_anew():
    told = iter([5_000_000, 5_100_000, 5_350_000, 20_000])
    _, gpus = opened(h100(answers={"nvmlDeviceGetTotalEnergyConsumption": lambda gpu: next(told)}))
    assert [gpus.read(set())[0]["energy"] for _ in range(3)] == [100, 350, 370]


def counted(*pairs):
    told = iter(pairs)

    def fields(gpu, ids):
        assert ids == [pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(ullVal=count)) for count in next(told)]

    return {"nvmlDeviceGetFieldValues": fields, **a100().answers}


def test_pcie_by_counters_where_there_are_some():
    card = a100(answers=counted((0, 0), (1000, 100), (3000, 50), (4000, 150)), refuse={})
    nvml, gpus = opened(card)
    read = [gpus.read(set())[0] for _ in range(3)]
    first, second = read[0]["pcie_received"], read[1]["pcie_received"]
    assert second == 2 * first
    assert read[1]["pcie_sent"] is None  # it went round
    assert read[2]["pcie_sent"] > 0
    assert "nvmlDeviceGetPcieThroughput" not in nvml.calls


def process(pid, memory):
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


def test_memory_of_the_program_is_that_of_its_processes():
    import os

    here, parent = os.getpid(), os.getppid()
    listed = [process(here, 5_000), process(parent, 70_000)]
    _, gpus = opened(h100(answers={"nvmlDeviceGetComputeRunningProcesses": lambda gpu: listed}))
    assert gpus.read({here})[0]["program_memory"] == 5_000
    assert gpus.read({here, parent})[0]["program_memory"] == 75_000
    # Another program's alone.
    assert gpus.read({1})[0]["program_memory"] == 0
    listed[0].usedGpuMemory = None
    assert gpus.read({here})[0]["program_memory"] is None


def test_processes_by_the_numbers_of_a_host_are_not_taken_for_none():
    foreign = next(pid for pid in itertools.count(4_000_000) if not psutil.pid_exists(pid))
    _, gpus = opened(
        h100(answers={"nvmlDeviceGetComputeRunningProcesses": lambda gpu: [process(foreign, 5_000)]})
    )
    assert gpus.read({1, 2})[0]["program_memory"] is None


def divided():
    """An A100 with two MIG instances. NVML tells an instance's memory; utilisation of neither."""
    refused = ("UtilizationRates", "PowerUsage", "DecoderUtilization", "JpgUtilization", "ClockInfo")
    refuse = {f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in refused}
    instances = [
        FakeGpu(
            f"MIG-0000000{place}-aaaa",
            "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
            {"nvmlDeviceGetMemoryInfo": SimpleNamespace(total=40 * 2**30, used=place * 2**30)},
            refuse,
            instance=place,
        )
        for place in (1, 2)
    ]
    return h100(instances=instances)


def test_mig_instances_are_devices_of_their_own():
    nvml, gpus = opened(divided())
    readings = [gpus.read(set()) for _ in range(3)]
    one, two = recorded(gpus, readings)
    assert one.name == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert one.facts["memory_bytes"] == 40 * 2**30
    assert (one.series["memory"][0], two.series["memory"][0]) == (2**30, 2**31)
    # Of the instance by GPM, and what holds for the whole holds for it.
    assert one.series["sm_active"][-1] == 0.88
    assert one.series["sm_clock"][-1] == 1755e6
    # The power of the whole is not that of the instance.
    assert "whole GPU" in one.absent["power"]
    assert "whole GPU" in one.absent["energy"]
    assert one.absent["utilisation"] == "this GPU, or its virtual form, does not tell it"
    assert one.series["pcie_received"][-1] == 2**30
    assert nvml.calls.keys() >= {"nvmlDeviceGetGpuInstanceId"}


def test_only_the_gpus_of_cuda_visible_devices_are_read():
    cards = [h100(uuid=f"GPU-{letter}000") for letter in "abc"]
    _, gpus = opened(*cards, environment={"CUDA_VISIBLE_DEVICES": "2,0"})
    assert [each.uuid for each in gpus.devices] == ["GPU-c000", "GPU-a000"]
    _, gpus = opened(*cards, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert gpus.devices == []
    assert gpus.absent["gpus"] == "CUDA_VISIBLE_DEVICES leaves the program no GPU"
