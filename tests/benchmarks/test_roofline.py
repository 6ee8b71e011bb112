"""How near a result is to its roofline, on made numbers; and that what is measured here can be."""

import math

import pytest
import torch

from imagen_fast.benchmarks import record, roofline, work
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import Result
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Sample, Timing
from imagen_fast.kernels import launch
from imagen_fast.kernels.cost import Work

CPU = torch.device("cpu")
MADE = {
    "device": "cpu",
    "threads": 1,
    "bandwidth": [
        {"bytes": 1000, "fastest": 90.0},  # a call so short that calling it counts
        {"bytes": 10_000, "fastest": 100.0},
        {"bytes": 100_000, "fastest": 10.0},
    ],
    "operations": {"fp32": 50.0, "bf16": 200.0},
    "exponentials": {"fp32": 4.0, "bf16": 5.0},
}


def entry(seconds, facts, made=MADE, cold=False):
    timing = None if seconds is None else Timing((Sample(seconds),))
    result = Result("a", OURS, "forward", Verdict(timing is not None), timing, facts, cold)
    (found,) = record.make_record("fake", True, {"roofline": made}, [[result]], [])["results"]
    return found


@pytest.mark.parametrize(
    ("least", "products", "seconds", "bound"),
    [
        (Work(2000, 1000, 10), "bf16", 20.0, "memory"),
        (Work(2000, 1000, 10), "fp32", 20.0, "memory"),
        (Work(2000, 2000, 10), "fp32", 40.0, "matrix"),
        (Work(2000, 2000, 10), "bf16", 20.0, "memory"),
        (Work(2000, 2000, 200), "bf16", 40.0, "exp"),
        (Work(2000, 2000, 200), "fp32", 50.0, "exp"),
        (Work(200_000, 0, 0), "fp32", 20_000.0, "memory"),
    ],
)
def test_the_slowest_of_the_three_is_the_roofline(least, products, seconds, bound):
    found = entry(80_000.0, work.stated(least, products))
    assert (found["roofline_seconds"], found["bound"]) == (seconds, bound)
    assert found["percent_of_roofline"] == pytest.approx(100 * seconds / 80_000)
    assert (found["bytes"], found["operations"]) == (least.bytes, least.operations)
    assert found["refused"] is None


def test_more_than_all_is_refused_with_a_reason():
    facts = work.stated(Work(2000, 1000, 10), "bf16")
    assert entry(20.0, facts)["percent_of_roofline"] == pytest.approx(100)
    found = entry(19.0, facts)
    assert found["percent_of_roofline"] is None
    assert found["refused"].startswith("105% of the roofline: its data lay in a nearer cache")
    assert "operations" in entry(1.0, work.stated(Work(0, 1000, 0), "bf16"))["refused"]


def test_who_is_not_correct_or_states_no_operations_has_no_share():
    facts = work.stated(Work(2000, 1000, 10), "bf16")
    assert entry(None, facts)["percent_of_roofline"] is None
    for found in (entry(1.0, {"bytes": 10}), entry(1.0, {}), entry(1.0, facts, made=None)):
        names = ("roofline_seconds", "bound", "percent_of_roofline", "refused")
        assert [found[name] for name in names] == [None] * 4
    assert entry(1.0, {"bytes": 10})["bytes"] == 10
    assert entry(1.0, {})["exponentials"] is None


@pytest.mark.parametrize(
    ("size", "rate"),
    [(1, 100), (1000, 100), (9999, 100), (10_000, 100), (99_999, 100), (100_000, 10), (None, 10)],
)
def test_bandwidth_is_that_of_data_no_larger(size, rate):
    assert roofline.bandwidth(MADE, size) == rate


def test_more_data_are_never_faster():
    rates = [roofline.bandwidth(MADE, 2**size) for size in range(20)]
    assert rates == sorted(rates, reverse=True)


def test_a_footprint_and_not_what_is_moved_decides_which_cache_holds_it():
    facts = work.stated(Work(1_000_000, 0, 0), "fp32", footprint=500)
    assert entry(1e9, facts)["roofline_seconds"] == 1_000_000 / 100


def test_where_the_cache_is_emptied_the_rate_is_that_of_memory():
    facts = work.stated(Work(2000, 0, 0), "fp32")
    on_gpu = MADE | {"device": "cuda"}
    assert entry(1e9, facts, on_gpu, cold=True)["roofline_seconds"] == 200
    assert entry(1e9, facts, on_gpu)["roofline_seconds"] == 20
    assert entry(1e9, facts, MADE, cold=True)["roofline_seconds"] == 20  # nothing empties a CPU's


def test_what_could_not_be_measured_bounds_nothing():
    facts = work.stated(Work(2000, 0, 10**9), "fp32")
    unknown = MADE | {"exponentials": dict.fromkeys(MADE["exponentials"])}
    assert entry(1e9, facts, unknown)["bound"] == "memory"
    assert "exponentials not measured" in roofline.describe(unknown)


def test_this_machine_is_measured_once(monkeypatch):
    monkeypatch.setattr(roofline, "LARGEST", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "CACHES", 0)
    monkeypatch.setattr(roofline, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(roofline, "BUDGET", 1e-3)
    roofline._measured.cache_clear()
    found = roofline.measure(CPU)
    assert roofline.measure(CPU) is found
    roofline._measured.cache_clear()
    assert [entry["bytes"] for entry in found["bandwidth"]] == [2**18, 2**19, 2**20]
    rates = [rate for entry in found["bandwidth"] for name, rate in entry.items() if name != "bytes"]
    rates += [*found["operations"].values(), *found["exponentials"].values()]
    # More than an abacus, less than any machine.
    assert all(1e6 < rate < 1e17 and math.isfinite(rate) for rate in rates)
    for entry in found["bandwidth"]:
        assert entry["fastest"] == max(entry[name] for name in ("sum", "dot", "copy", "triad"))


def test_a_type_that_is_only_imitated_has_the_rate_of_the_one_that_is_not(monkeypatch):
    rates = {torch.float32: 90.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(roofline, "_product_rate", lambda dtype, kind: rates[dtype])
    assert roofline._operations("cpu") == {"fp32": 90.0, "bf16": 90.0}
    rates[torch.bfloat16] = 200.0
    assert roofline._operations("cpu") == {"fp32": 90.0, "bf16": 200.0}


def test_the_last_cache_is_that_of_all_processors(tmp_path):
    """Two complexes of two processors, as on a chip of several dies."""
    for cpu, complex_ in enumerate(("0-1", "0-1", "2-3", "2-3")):
        for index, (level, shared, size) in enumerate(
            [(1, str(cpu), "32K"), (1, str(cpu), "64K"), (2, str(cpu), "1024K"), (3, complex_, "32768K")]
        ):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("shared_cpu_list", shared), ("size", size)):
                (folder / name).write_text(f"{text}\n")
    assert roofline._last_level_cache(tmp_path) == 2 * 32 * 2**20
    assert roofline._last_level_cache(tmp_path / "cpu0" / "nothing") is None


@pytest.mark.skipif(not launch.INSTALLED or launch.INTERPRETED, reason="compiles a Triton kernel")
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_of_exponentials_compiles_to_them(capability):
    """Of registers alone: a loop of the instruction, and one store."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from imagen_fast.benchmarks import exponential_rate

    signature = {"y": "*fp32", "REPEATS": "constexpr", "BLOCK": "constexpr"}
    constants = {"REPEATS": exponential_rate.REPEATS, "BLOCK": exponential_rate.BLOCK}
    source = ASTSource(exponential_rate.powers_of_two, signature, constants)
    ptx = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).asm[
        "ptx"
    ]
    assert ptx.count("ex2.approx") >= exponential_rate.BLOCK // (32 * exponential_rate.WARPS)
    assert "ld.global" not in ptx


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured():
    found = roofline.measure(torch.device("cuda"))
    assert found["operations"]["bf16"] > found["operations"]["fp32"] > 1e11
    assert 1e10 < found["exponentials"]["bf16"] < 1e14
    assert 1e10 < roofline.bandwidth(found) <= roofline.bandwidth(found, 2**22)
