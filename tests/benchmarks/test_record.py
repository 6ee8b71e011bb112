"""What a run says: its JSON, its ratios, and that only the correct have a speed."""

import importlib.metadata
import json
from dataclasses import replace

import pytest
import torch

from imagen_fast.benchmarks import record, roofline, suites, work
from imagen_fast.benchmarks.cli import main
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest, Result, hold
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Effort, Sample, Timing
from imagen_fast.benchmarks.peers import Absence, Peer, compiler_absence
from imagen_fast.errors import InvalidInput
from imagen_fast.kernels.cost import Work

CPU = torch.device("cpu")
MADE = {
    "device": "cpu",
    "bandwidth": [{"bytes": 10**6, "fastest": 1e10}],
    "operations": {"fp32": 5e10, "bf16": 2e12},
    "exponentials": {"fp32": 1e9, "bf16": 3e9},
}
RIGHT = Verdict(True, {"error": 0.0})


def result(case, implementation, *seconds):
    timing = Timing(tuple(Sample(s) for s in seconds)) if seconds else None
    return Result(case, implementation, "step", Verdict(timing is not None), timing)


def contender(case, implementation, verdict=RIGHT):
    return Contender(case, implementation, lambda: (lambda: None, verdict), {"images": 2})


def broken():
    raise MemoryError("no room\nat all")


def contest(*contenders, absent=()):
    return Contest("fake", "step", lambda: list(contenders), Effort(0, 2, 2, 0), absent)


def test_ratio_is_the_peers_median_over_ours():
    found = record.ratios([result("a", OURS, 1, 2, 9), result("b", OURS, 4), result("a", "peer x", 5, 7, 6)])
    assert [(r["case"], r["versus"], r["ratio"]) for r in found] == [("a", "peer x", 3), ("b", "peer x", 1.5)]


def test_the_incorrect_and_the_broken_have_no_speed_and_no_ratio():
    wrong = Verdict(False, {"error": float("nan")})
    results = hold(
        contest(
            contender("a", OURS, wrong),
            contender("b", OURS),
            contender("a", "good"),
            contender("a", "bad", wrong),
            Contender("a", "broken", broken),
        ),
        CPU,
    )
    made = record.make_record("fake", True, {}, [results], [])
    by_name = {(r["case"], r["implementation"]): r for r in made["results"]}
    for name in [("a", OURS), ("a", "bad"), ("a", "broken")]:
        assert by_name[name]["correct"] is False
        assert by_name[name]["median"] is None
        assert by_name[name]["samples"] == []
    assert by_name["a", "broken"]["evidence"] == {"failed": "MemoryError: no room"}
    assert [(r["case"], r["versus"]) for r in made["ratios"]] == [("b", "good")]
    json.dumps(made, allow_nan=False)


def test_a_peer_without_kernels_for_a_cpu_says_so_installed_or_not():
    peer = Peer("nobody", "no_such_module_here", "pip install nobody", needs_cuda=True)
    assert peer.absence("cpu") == Absence("nobody", "needs a CUDA device", "pip install nobody")
    assert peer.absence("cuda") == Absence("nobody", "not installed", "pip install nobody")
    here = Peer("torch", "torch", "pip install torch", needs_cuda=True)
    assert here.absence("cpu").why == "needs a CUDA device"
    assert here.absence("cuda") is None


def test_a_peer_whose_package_cannot_be_imported_is_absent_with_the_reason(tmp_path, monkeypatch):
    package = tmp_path / "broken_peer_here"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libx.so: cannot open\\nshared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    absence = Peer("broken", "broken_peer_here.ops", "pip install broken").absence()
    assert absence == Absence("broken", "cannot be imported: libx.so: cannot open", "pip install broken")


def test_what_a_quick_run_does_not_compile_is_named():
    absence = compiler_absence("SDPA compiled", "cpu", quick=True)
    assert (absence.peer, absence.install) == ("SDPA compiled", "leave out --quick")
    for device, quick in (("cpu", False), ("cuda", True)):
        absence = compiler_absence("SDPA compiled", device, quick)
        assert absence is None or absence.why == "torch.compile found no C++ compiler"


def test_absent_peers_are_named_with_what_brings_them():
    absence = Peer("nobody", "no_such_module_here", "pip install nobody").absence()
    assert absence == Absence("nobody", "not installed", "pip install nobody")
    assert Peer("torch", "torch", "").absence() is None


@pytest.fixture
def fake_suite(monkeypatch):
    absence = Absence("nobody", "not installed", "pip install nobody")
    contests = [
        contest(contender("mae x step", OURS), contender("mae x step", "peer bf16"), absent=(absence,))
    ]

    class Fake:
        what = "nothing"

        def contests(self, device, quick):
            return iter(contests * 2)

    monkeypatch.setitem(suites.SUITES, "fake", Fake())
    monkeypatch.setattr(roofline, "measure", lambda device: MADE)


@pytest.mark.usefixtures("fake_suite")
def test_a_run_writes_the_whole_form(tmp_path, capsys):
    path = tmp_path / "new" / "fake.json"
    assert main(["fake", "--device", "cpu", "--quick", "--json", str(path)]) == 0
    made = record.read(path)
    assert list(made) == ["suite", "quick", "machine", "results", "ratios", "absent"]
    assert made["absent"] == [{"peer": "nobody", "why": "not installed", "install": "pip install nobody"}]
    first = made["results"][0]
    assert (first["case"], first["implementation"], first["pass"]) == ("mae x step", OURS, "step")
    assert (first["unit"], first["correct"], first["rounds"], first["images"]) == ("s", True, 2, 2)
    assert first["median"] > 0
    assert first["spread"] >= 0
    assert first["peak_bytes"] is None
    assert first["contest"] == "fake"
    assert len(first["samples"]) == len(first["cpu_samples"]) == 2
    of_work = (
        "bytes",
        "operations",
        "exponentials",
        "roofline_seconds",
        "bound",
        "percent_of_roofline",
        "refused",
    )
    assert {name: first[name] for name in of_work} == dict.fromkeys(of_work)
    assert made["machine"]["roofline"] == MADE
    machine = made["machine"]
    assert machine["threads"] == torch.get_num_threads()
    assert machine["versions"]["torch"]
    assert machine["versions"]["Pillow"] == importlib.metadata.version("pillow")
    assert {"processor", "cores", "memory_bytes", "os", "python", "commit", "date"} <= machine.keys()
    assert {"case", "versus", "ratio"} <= made["ratios"][0].keys()
    screen = capsys.readouterr().out
    assert "absent: nobody, not installed; pip install nobody" in screen
    assert "peer bf16" in screen
    assert "10 GB/s of memory and up to 10 of caches, 50 GFLOP/s in fp32, 2 TFLOP/s in bf16" in " ".join(
        screen.split()
    )


@pytest.mark.usefixtures("fake_suite")
def test_as_many_rounds_as_asked_for(tmp_path):
    assert main(["fake", "--rounds", "7", "--json", str(tmp_path / "fake.json")]) == 0
    assert {result["rounds"] for result in record.read(tmp_path / "fake.json")["results"]} == {7}


@pytest.mark.usefixtures("fake_suite")
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "the suite is missing"),
        (["nothing"], "the suite is unknown: 'nothing'"),
        (["fake", "--device", "tpu"], "device must be one of cpu, cuda, not 'tpu'"),
        (["fake", "--fast"], "unrecognized arguments: --fast"),
        (["fake", "--only", "huge"], "no contest of the suite fake has 'huge' in its name"),
        (["fake", "--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["fake", "--json", "/proc/none/x.json"], "cannot be made"),
        (["report", "/nowhere.json"], "cannot be read as a record"),
    ],
)
def test_bad_options_get_one_sentence(args, sentence):
    with pytest.raises(InvalidInput, match=sentence) as raised:
        main(args)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("bytes_moved", "shown"), [(10**3, "% memory"), (10**12, "over 100%: refused")])
def test_the_screen_says_how_near_the_roofline_or_why_not(
    fake_suite, monkeypatch, capsys, bytes_moved, shown
):
    facts = work.stated(Work(bytes_moved, 1, 1), "bf16")
    one = contest(replace(contender("mae x step", OURS), facts=facts))
    monkeypatch.setattr(suites.SUITES["fake"], "contests", lambda device, quick: iter([one]))
    assert main(["fake"]) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert shown in screen
    assert ("its data lay in a nearer cache" in screen) == (shown == "over 100%: refused")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.usefixtures("fake_suite")
def test_a_device_that_is_not_there_gets_one_sentence():
    with pytest.raises(InvalidInput, match="finds none here"):
        main(["fake", "--device", "cuda"])


@pytest.mark.usefixtures("fake_suite")
@pytest.mark.parametrize("args", [[], ["fake"]])
def test_suites_are_listed_with_their_contests_and_peers(args, capsys, monkeypatch):
    for name in [name for name in suites.SUITES if name != "fake"]:
        monkeypatch.delitem(suites.SUITES, name)
    assert main([*args, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fake: nothing",
        "  fake",
        "  fake",
        f"  present: {OURS}; peer bf16",
        "  absent: nobody, not installed; pip install nobody",
    ]
