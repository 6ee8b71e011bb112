"""Figures, verdicts and changes of runs on a GPU, made up: no recording of a real one is here yet."""

import pytest

from imagen_fast.kernels import chips
from imagen_fast.profiling import peaks
from imagen_fast.profiling.recording import Ceilings, Gpu, Op, Peaks, Recording, Samples, Steps, Window
from imagen_fast.profiling.summary import summarise
from imagen_fast.profiling.verdict import judge

STEP = 0.1
STEPS = 60
WINDOW = 4
H100 = "NVIDIA H100 80GB HBM3"
# Of a step on the GPU, seconds.
BUSY = {"data": 0.0, "copy": 0.001, "communication": 0.0, "matrix": 0.06, "memory": 0.03, "optimizer": 0.004}


def run(waits=0.0, workers_cpu=0.0, ops=None, gpu=None, gpu_name=H100, facts=None, world=1, **timeline):
    """A run whose step takes `STEP`, with so many seconds of it of each kind; the rest is idle.

    Args:
        waits: seconds a step in which the host waits for its batch.
    """
    line = BUSY | timeline
    line["idle"] = STEP - sum(line.values())
    assert line["idle"] >= 0
    steps = Steps(
        pid=1,
        world=world,
        end=[STEP * (number + 1) for number in range(STEPS)],
        seconds=[STEP] * STEPS,
        data=[waits] * STEPS,
        data_cpu=[0.0] * STEPS,
        images=[64] * STEPS,
        workers=4,
    )
    window = Window(
        "cuda",
        WINDOW,
        WINDOW * STEP,
        {kind: WINDOW * seconds for kind, seconds in line.items()},
        launches=4000,
        ops=[Op("aten::mm", "matrix", 100, WINDOW * line["matrix"], 80e12, 60e12, 1e9, "bfloat16")]
        if ops is None
        else ops,
    )
    time = [0.5 * number for number in range(20)]
    series = {name: [value] * len(time) for name, value in (gpu or {}).items()}
    if "energy" in series:
        series["energy"] = [500.0 * at for at in time]
    host = {
        "workers_cpu": [workers_cpu] * 20,
        "cpu": [workers_cpu + 1] * 20,
        "machine_cpu": [workers_cpu + 1] * 20,
    }
    return Recording(
        command=["python", "train.py"],
        started="2026-01-01T00:00:00+00:00",
        seconds=10.0,
        machine={"cores": 8},
        samples=Samples(0.5, time, host, [Gpu(0, gpu_name, facts or {}, series)]),
        peaks=peaks.published(gpu_name),
        steps=[steps],
        window=window,
    )


def judged(recording):
    summary = summarise(recording)
    return judge(recording, summary), summary


@pytest.mark.parametrize(
    ("bottleneck", "recording"),
    [
        ("compute", run()),
        ("memory", run(matrix=0.02, memory=0.06)),
        ("memory", run(matrix=0.02, memory=0.02, optimizer=0.05)),
        ("copying", run(matrix=0.02, memory=0.01, copy=0.06)),
        ("communication", run(matrix=0.03, memory=0.005, communication=0.06, world=8)),
        ("launching", run(matrix=0.02, memory=0.01)),
        ("data", run(waits=0.065, matrix=0.02, memory=0.01)),
        ("decoding", run(waits=0.065, workers_cpu=3.9, matrix=0.02, memory=0.01)),
        (
            "throttled",
            run(gpu={"throttled": 1.0, "sm_clock": 1.1e9}, facts={"max_sm_clock": 1.98e9}),
        ),
    ],
)
def test_the_largest_share_of_the_gpus_time_is_the_bottleneck(bottleneck, recording):
    verdict, summary = judged(recording)
    assert verdict.bottleneck == bottleneck, summary.shares
    assert sum(summary.shares.values()) == pytest.approx(1, abs=0.01)


def test_a_host_that_waits_while_the_gpu_works_holds_nothing_up():
    verdict, summary = judged(run(waits=0.09, matrix=0.09, memory=0.004))
    assert verdict.bottleneck == "compute"
    assert summary.shares.get("data", 0) < 0.02


def test_products_with_few_operations_a_byte_wait_for_memory():
    thin = [Op("aten::mm", "matrix", 100, WINDOW * 0.09, 1e12, 1e12, 1e12, "bfloat16")]
    verdict, _ = judged(run(matrix=0.09, memory=0.004, ops=thin))
    assert verdict.bottleneck == "memory"


def test_utilisation_of_the_peak():
    _, summary = judged(run())
    assert summary.hfu == pytest.approx(80e12 / WINDOW / STEP / 989.4e12)
    assert summary.mfu == pytest.approx(0.75 * summary.hfu)


def test_an_unknown_chip_has_no_peak():
    verdict, summary = judged(run(gpu_name="NVIDIA H100 of another kind"))
    assert summary.hfu is None
    assert summary.mfu is None
    assert summary.refused == {}
    assert verdict.bottleneck == "compute"
    assert peaks.published("NVIDIA H100 of another kind") == Peaks("NVIDIA H100 of another kind")


@pytest.mark.parametrize(
    ("chip", "name"),
    [
        ("A100 80GB", "NVIDIA A100-SXM4-80GB"),
        ("H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("H200", "NVIDIA H200"),
        ("B200", "NVIDIA B200"),
    ],
)
def test_peaks_are_those_that_the_kernels_are_held_against(chip, name):
    (kernels,) = (known for known in chips.CHIPS if known.name == chip)
    found = peaks.published(name)
    assert found.bandwidth == pytest.approx(kernels.bandwidth)
    assert found.operations == pytest.approx(
        {"float16": kernels.half, "bfloat16": kernels.half, "float32": kernels.single}
    )


def test_more_than_the_peak_is_refused():
    much = [Op("aten::mm", "matrix", 100, WINDOW * 0.06, 900e12, 300e12, 1e9, "bfloat16")]
    _, summary = judged(run(ops=much))
    assert summary.hfu is None
    assert summary.mfu == pytest.approx(300e12 / WINDOW / STEP / 989.4e12)
    assert summary.refused == {"hfu": "227% of the peak of NVIDIA H100 80GB HBM3"}


def test_without_the_operations_of_most_products_there_is_no_share():
    counted = Op("aten::mm", "matrix", 100, WINDOW * 0.04, 80e12, 60e12, 1e9, "bfloat16")
    replayed = Op("sm90_xmma_gemm", "matrix", 100, WINDOW * 0.02)
    _, summary = judged(run(ops=[counted, replayed]))
    assert (summary.mfu, summary.hfu) == (None, None)
    assert summary.refused["mfu"].startswith("33% of the time of products is in kernels without a formula")


def test_a_program_that_is_compiled_is_not_told_to_compile():
    loops = [Op("CompiledFunction", "memory", 4, WINDOW * 0.08)]
    for ops, told in (([], True), (loops, False)):
        recording = run(matrix=0.01, memory=0.08, ops=ops)
        whats = [change.what for change in judged(recording)[0].changes]
        assert any("torch.compile the model" in what for what in whats) == told


def test_joules_an_image():
    _, summary = judged(run(gpu={"energy": 0.0}))
    assert summary.images_per_second == pytest.approx(640)
    assert summary.joules_per_image == pytest.approx(500 / 640)


def test_a_measured_ceiling_is_the_gain():
    recording = run(waits=0.065, matrix=0.02, memory=0.01)
    before = judged(recording)[0].changes[0]
    recording.ceilings = Ceilings(as_is=0.1, in_memory=0.04, rounds=2)
    verdict, _ = judged(recording)
    assert (before.gain, before.basis) == (pytest.approx(1 / 0.35, abs=0.01), "computed")
    assert (verdict.changes[0].gain, verdict.changes[0].basis) == (2.5, "measured")
    assert any("2.50 times as fast (measured)" in sentence for sentence in verdict.evidence)


def test_a_ceiling_that_is_no_faster_speaks_against_it():
    recording = run(waits=0.065, matrix=0.02, memory=0.01)
    recording.ceilings = Ceilings(as_is=0.1, in_memory=0.099, rounds=2)
    verdict, _ = judged(recording)
    assert any("hardly faster" in sentence for sentence in verdict.against)


def test_a_busy_gpu_speaks_against_waiting():
    verdict, _ = judged(run(waits=0.065, matrix=0.02, memory=0.01, gpu={"utilisation": 0.97}))
    assert any("ran a kernel 97% of the time" in sentence for sentence in verdict.against)


def test_changes_follow_from_what_was_seen():
    fused = [Op("aten::_fused_adamw_", "optimizer", 4, WINDOW * 0.05, None, None, 1e9, "float32")]
    loose = [Op("aten::mul_", "optimizer", 400, WINDOW * 0.05, None, None, 1e9, "float32")]
    told = [
        {change.what for change in judged(run(matrix=0.02, memory=0.02, optimizer=0.05, ops=ops))[0].changes}
        for ops in (loose, fused)
    ]
    assert ["the fused optimiser: fused=True" in what for what in told] == [True, False]


def test_what_helps_against_two_causes_is_told_once_with_its_larger_gain():
    work = {"bytes": 1e9, "dtype": "float32"}
    ops = [
        Op("aten::mm", "matrix", 100, WINDOW * 0.05, 80e12, 60e12, **work),
        Op("aten::mul", "memory", 100, WINDOW * 0.04, None, None, **work),
    ]
    recording = run(matrix=0.05, memory=0.04, ops=ops)
    changes = judged(recording)[0].changes
    halves = [change for change in changes if change.what.startswith("bfloat16")]
    assert [change.basis for change in halves] == ["computed"]
    assert len(changes) > 1


def test_few_steps_make_a_verdict_unsure():
    recording = run()
    sure = judged(recording)[0].confidence
    for name in ("end", "seconds", "data", "data_cpu", "images"):
        setattr(recording.steps[0], name, getattr(recording.steps[0], name)[:4])
    assert judged(recording)[0].confidence < 0.6 * sure


def test_without_steps_nothing_is_concluded():
    recording = run()
    recording.steps, recording.window = [], None
    recording.absent["steps"] = "no process of the program took batches"
    verdict, summary = judged(recording)
    assert (verdict.bottleneck, verdict.confidence) == ("unknown", 0)
    assert verdict.evidence == ["No process of the program took batches."]
    assert summary.step_seconds is None
