"""Made-up recordings: a healthy run on GPUs, one on the CPU that decodes in its own process, an empty one."""

from __future__ import annotations

import numpy as np

from imagen_fast.profiling.findings import Change, Summary, Verdict
from imagen_fast.profiling.recording import (
    Ceilings,
    Gpu,
    Op,
    Peaks,
    Recording,
    Samples,
    Steps,
    Window,
)

Profile = tuple[Recording, Summary, Verdict]
NO_GPU = "no NVIDIA driver is installed"


def gpu_run(gpus: int = 1, samples: int = 180, step: float = 0.152, seed: int = 0) -> Profile:
    """A run of `samples` half seconds on H100s, bound by its matrix products."""
    rng = np.random.default_rng(seed)
    time = 0.5 * np.arange(samples)
    seconds = float(time[-1])
    warm = np.clip((time - 3) / 6, 0, 1)

    def around(level: float, spread: float, high: float = np.inf) -> list[float | None]:
        return np.clip(level * warm * (1 + spread * rng.standard_normal(samples)), 0, high).round(4).tolist()

    host = {
        "cpu": around(11.2, 0.06),
        "main_cpu": around(1.1, 0.05),
        "workers_cpu": around(10.1, 0.06),
        "machine_cpu": around(11.9, 0.06),
        "memory": around(18.4e9, 0.001),
        "memory_available": (118e9 - 18.4e9 * warm).tolist(),
        "read": around(410e6, 0.4),
        "written": around(1.2e6, 1.5),
        "received": around(24e3, 0.5),
        "sent": around(19e3, 0.5),
        "in_storage": around(0.04, 0.6, 1),
        "throttled": [0.0] * samples,
        "cpu_pressure": around(0.03, 0.7, 1),
        "io_pressure": around(0.02, 0.7, 1),
        "memory_pressure": [0.0] * samples,
        "clock": around(3.1e9, 0.01),
    }
    cards = [_card(index, time, around) for index in range(gpus)]
    count = int((seconds - 7) / (1.01 * step))
    took = step * (1 + 0.02 * rng.standard_normal(count)) + 0.05 * (rng.random(count) < 0.02)
    took[0] = 4.1  # the first step compiles
    waited = np.minimum(0.004 * rng.exponential(1, count), took / 2)
    ends = 1.2 + np.cumsum(took)
    steps = [
        Steps(
            pid=4000 + rank,
            rank=rank,
            world=gpus,
            end=ends.tolist(),
            seconds=took.tolist(),
            data=waited.tolist(),
            data_cpu=(waited * 0.2).tolist(),
            images=[256] * count,
            workers=12,
        )
        for rank in range(gpus)
    ]
    peaks = Peaks(
        "NVIDIA H100 80GB HBM3",
        "data sheet",
        {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
        3.35e12,
    )
    recording = Recording(
        command=["python", "train.py", "--model", "vit-base", "--note", "<script>alert(1)</script>"],
        started="2026-03-01T12:00:00+01:00",
        seconds=seconds,
        machine={
            "processor": "AMD EPYC 9654",
            "cores": 96,
            "memory_bytes": 136e9,
            "system": "Linux 6.8",
            "versions": {"python": "3.12.4", "torch": "2.14.1", "cuda": "13.0"},
        },
        samples=Samples(0.5, time.tolist(), host, cards, {}),
        exit_code=0,
        peaks=peaks,
        steps=steps,
        window=_gpu_window(),
        ceilings=Ceilings(as_is=step, in_memory=0.148, graph=0.141, rounds=8),
        absent={},
    )
    summary = Summary(
        steps=count,
        step_seconds=step,
        step_spread=0.004,
        images_per_second=256 * gpus / step,
        operations_per_step=61e12,
        model_operations_per_step=55e12,
        mfu=0.366,
        hfu=0.406,
        joules_per_image=0.41,
        shares={"compute": 0.62, "memory": 0.21, "launching": 0.08, "data": 0.04, "copying": 0.05},
    )
    verdict = Verdict(
        "compute",
        0.86,
        [
            "Matrix products take 62% of a step.",
            "Tensor cores were active 58% of the time (GPM).",
            "With a batch that is already there a step takes 148 ms, 3% less.",
        ],
        ["The GPU idles 8% of a step between kernels."],
        [
            Change(
                "Replay the step as a CUDA graph", "8% of a step is spent between kernels", 1.08, "measured"
            ),
            Change("Fuse the normalisations", "they move 31 GB a step through memory", 1.06, "computed"),
            Change(
                "Train in FP8", "matrix products prevail and the chip has twice the peak", None, "computed"
            ),
        ],
    )
    return recording, summary, verdict


def _card(index: int, time: np.ndarray, around) -> Gpu:
    samples = len(time)
    series = {
        "utilisation": around(0.97, 0.02, 1),
        "memory": around(61e9, 0.001),
        "program_memory": around(60e9, 0.001),
        "memory_controller": around(0.48, 0.1, 1),
        "power": around(612, 0.03),
        "energy": (612 * time).tolist(),
        "sm_clock": around(1.74e9, 0.02),
        "memory_clock": [2.619e9] * samples,
        "temperature": (34 + 30 * (1 - np.exp(-time / 20))).round().tolist(),
        "throttled": around(0.02, 2, 1),
        "pcie_received": around(1.4e9, 0.2),
        "pcie_sent": around(0.1e9, 0.2),
        "decoder": [0.0] * samples,
        "jpeg": [0.0] * samples,
        "sm_active": around(0.91, 0.02, 1),
        "sm_occupancy": around(0.34, 0.05, 1),
        "tensor_active": around(0.58, 0.04, 1),
        "fp32_active": around(0.11, 0.1, 1),
        "dram_active": around(0.46, 0.05, 1),
    }
    # One reading that failed leaves a gap.
    series["power"][samples // 2] = None
    return Gpu(
        index,
        "NVIDIA H100 80GB HBM3",
        {"memory_bytes": 85.5e9, "power_limit": 700, "driver": "580.65"},
        series,
        {"sw_power_cap": 0.021},
        {"nvlink_received": "NVLink is not connected", "nvlink_sent": "NVLink is not connected"},
    )


def _gpu_window() -> Window:
    steps, seconds = 4, 0.63
    matrix = [
        ("aten::addmm", 192, 0.168, 112e12, 9.1e10),
        ("aten::mm", 384, 0.142, 98e12, 1.02e11),
        ("imagen_fast::masked_patch_attention_backward", 48, 0.051, 21e12, 1.1e10),
        ("imagen_fast::masked_patch_attention", 48, 0.028, 13e12, 8e9),
    ]
    other = [
        ("aten::native_layer_norm", 100, 0.021, 0.8e11, 4.4e10),
        ("aten::native_layer_norm_backward", 100, 0.034, 1.6e11, 6.4e10),
        ("aten::gelu", 48, 0.018, 1.9e11, 4.2e10),
        ("aten::gelu_backward", 48, 0.027, 2.4e11, 6.3e10),
        ("aten::add_", 400, 0.012, 2e10, 3.3e10),
        ("<script>alert('op')</script>", 8, 0.003, 2e9, 8e9),
    ]
    ops = [
        *(
            Op(name, "matrix", calls, took, work, 0.9 * work, moved, "bfloat16")
            for name, calls, took, work, moved in matrix
        ),
        *(
            Op(name, "memory", calls, took, work, work, moved, "bfloat16")
            for name, calls, took, work, moved in other
        ),
        # More than the memory can move: refused, never shown as 140%.
        Op("aten::fill_", "memory", 40, 0.0004, None, None, 1.9e9, "bfloat16"),
        Op("aten::_to_copy", "copy", 120, 0.029, None, None, 5.1e10, "float32"),
        Op("imagen_fast::adamw_step", "optimizer", 4, 0.011, 5e9, 5e9, 3.1e10, "float32"),
        Op("custom::mystery", "memory", 12, 0.002, None, None, None, None),
    ]
    timeline = {
        "matrix": 0.389,
        "memory": 0.119,
        "copy": 0.029,
        "optimizer": 0.011,
        "data": 0.02,
        "idle": 0.062,
    }
    return Window("cuda", steps, seconds, timeline, 1580, syncs=8, ops=ops)


def cpu_run(step: float = 0.8, seed: int = 1) -> Profile:
    """A run without a GPU that decodes in its training process; its chip's peak is not known."""
    rng = np.random.default_rng(seed)
    time = np.arange(60) * 1.0
    host = {
        "cpu": (1.9 + 0.1 * rng.standard_normal(60)).tolist(),
        "main_cpu": (1.9 + 0.1 * rng.standard_normal(60)).tolist(),
        "memory": (1.2e9 + 1e7 * rng.standard_normal(60)).tolist(),
        "read": np.abs(4e6 * rng.standard_normal(60)).tolist(),
    }
    took = step * (1 + 0.04 * rng.standard_normal(int(58 / step)))
    waited = took * 0.55
    steps = Steps(
        pid=77,
        end=(1 + np.cumsum(took)).tolist(),
        seconds=took.tolist(),
        data=waited.tolist(),
        data_cpu=(waited * 0.93).tolist(),
        images=[32] * len(took),
        workers=0,
    )
    ops = [
        Op("aten::addmm", "matrix", 96, 0.61, 9.8e10, 9.8e10, 1.1e9, "float32"),
        Op("aten::native_layer_norm", "memory", 50, 0.08, 1.2e8, 1.2e8, 6e8, "float32"),
        Op("aten::copy_", "copy", 80, 0.05, None, None, 4e8, "float32"),
    ]
    timeline = {"data": 0.9, "matrix": 0.61, "memory": 0.08, "copy": 0.05, "idle": 0.02}
    recording = Recording(
        command=["python", "train.py", "--workers", "0"],
        started="2026-03-01T12:00:00+00:00",
        seconds=60.0,
        machine={"processor": "a chip", "cores": 2, "versions": {"torch": "2.14.1"}},
        samples=Samples(1.0, time.tolist(), host, [], {"gpus": NO_GPU, "clock": "the kernel does not tell"}),
        exit_code=0,
        steps=[steps],
        window=Window("cpu", 2, 1.66, timeline, 900, ops=ops),
        ceilings=Ceilings(as_is=step, in_memory=0.37, rounds=8),
        peaks=Peaks("a chip"),
        absent={"graph": "CUDA graphs need a GPU"},
    )
    summary = Summary(
        steps=len(took),
        step_seconds=step,
        step_spread=0.04,
        images_per_second=32 / step,
        operations_per_step=4.9e10,
        model_operations_per_step=4.9e10,
        shares={"decoding": 0.51, "data": 0.04, "compute": 0.36, "memory": 0.06, "launching": 0.03},
        refused={"hfu": "it would be 104% of the measured peak"},
    )
    verdict = Verdict(
        "decoding",
        0.93,
        ["51% of a step the training process itself decodes.", "No workers prepare batches beside it."],
        [],
        [Change("Decode in 2 worker processes", "num_workers=0 now", 2.16, "measured")],
    )
    return recording, summary, verdict


def empty_run() -> Profile:
    """Nothing could be recorded: no PyTorch, no steps, no samples."""
    why = "the program did not use PyTorch"
    recording = Recording(
        command=["true"],
        started="2026-03-01T12:00:00+00:00",
        seconds=0.01,
        machine={},
        samples=Samples(0.5, absent={"gpus": NO_GPU, "cpu": "the program ended before the first sample"}),
        exit_code=0,
        absent={"steps": why, "window": why, "ceilings": why},
    )
    return recording, Summary(), Verdict("unknown", 0.0, ["There were no steps."])
