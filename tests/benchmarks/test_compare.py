"""Two records beside each other: what is called slower, what the same, and how often wrongly."""

import importlib
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imagen_fast.benchmarks import record
from imagen_fast.benchmarks.cli import main
from imagen_fast.benchmarks.compare import compare
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.errors import InvalidInput

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MACHINE = {
    "device": "cpu",
    "processor": "a chip",
    "threads": 2,
    "versions": {"torch": "9", "imagen-fast": "1"},
}


def made(
    seed, changes=None, rounds=60, machine=MACHINE, noise=0.01, contests="abcd", peers=3, resemblance=0.0
):
    """A record of peers and ours in each contest, whose times are multiplied by `changes`."""
    rng = np.random.default_rng(seed)
    changes = changes or {}
    results = []
    for contest in contests:
        for number, implementation in enumerate((OURS, "x", "y", "z")[: peers + 1]):
            logs = rng.normal(0, noise, rounds)
            for i in range(1, rounds if resemblance else 0):
                logs[i] = resemblance * logs[i - 1] + math.sqrt(1 - resemblance**2) * logs[i]
            seconds = 0.01 * (number + 1) * np.exp(logs)
            factor = changes.get(
                (contest, implementation), changes.get(implementation, changes.get("all", 1))
            )
            samples = (seconds * factor).tolist()
            results.append(
                {
                    "contest": contest,
                    "case": f"case {contest}",
                    "implementation": implementation,
                    "correct": True,
                    "samples": samples,
                    "cpu_samples": samples,
                }
            )
    return {"suite": "fake", "machine": machine, "results": results, "ratios": []}


def verdicts(*arguments, **options):
    return {f"{f.case}, {f.implementation}": f.verdict for f in compare(*arguments, **options).findings}


def incorrect(given, number):
    results = list(given["results"])
    results[number] = results[number] | {"correct": False, "samples": [], "cpu_samples": []}
    return given | {"results": results}


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "importable")
    return importlib.import_module


@pytest.fixture
def resampled(importable):
    return importable("resampled_records")


# --- how often it is right ----------------------------------------------------------------------------


@pytest.fixture
def chosen():
    """Every sixth case of a real record, for the sake of time."""
    whole = record.read(RESULTS / "pixels-cpu.json")
    cases = set(list(dict.fromkeys(result["case"] for result in whole["results"]))[::6])
    return whole | {"results": [result for result in whole["results"] if result["case"] in cases]}


def test_with_rounds_enough_the_same_is_called_same_and_five_percent_are_found(
    resampled, chosen, monkeypatch
):
    """On a calm machine; of 40 comparisons each may miss 2, as 1 in 20 may."""
    monkeypatch.setattr(resampled, "SHIFT", 0.005)
    monkeypatch.setattr(resampled, "CONTEST", 0.005)
    monkeypatch.setattr(resampled, "CONTENDER", 0.003)
    found = resampled.repeat(chosen, times=40, seed=1, rounds=200)
    assert found.alarms <= 2
    assert found.all_same >= 38
    assert found.slowed["slower"] >= 38


def test_with_few_rounds_it_is_unclear_rather_than_wrong(resampled, chosen):
    found = resampled.repeat(chosen, times=20, seed=2, rounds=9)
    assert found.alarms <= 2
    assert found.slowed["same"] <= 2
    assert found.slowed["unclear"] > 5


@pytest.mark.parametrize(
    ("times", "most", "run"),
    [
        pytest.param(60, 6, {"rounds": 5, "contests": "abcdefghij"}, id="five rounds"),
        pytest.param(100, 10, {"rounds": 15, "resemblance": 0.9}, id="drifting rounds"),
    ],
)
def test_noise_is_seldom_called_a_change(times, most, run):
    """Of normal rounds that stray by 3%; 5 in 100 may be wrong, and so many more as chance explains."""
    counts = [
        compare(*(made(2 * i + side, noise=0.03, **run) for side in (0, 1))).count for i in range(times)
    ]
    assert sum(count["faster"] + count["slower"] > 0 for count in counts) <= most


def test_the_rounds_that_would_do_would_do():
    """They are an estimate from a noisy record: half as many again must be enough for nearly all."""
    asked, unclear = 0, 0
    for seed in range(8):
        few = compare(*(made(10 * seed + side, rounds=20, noise=0.05) for side in (0, 1)))
        needed = [f.rounds_needed for f in few.findings if f.rounds_needed]
        assert all(20 < rounds < 2000 for rounds in needed)
        if needed:
            most = math.ceil(1.5 * max(needed))
            many = compare(*(made(10 * seed + side, rounds=most, noise=0.05) for side in (2, 3)))
            asked += len(needed)
            unclear += sum(f.verdict == "unclear" for f in many.findings)
    assert asked >= 10
    assert unclear <= asked / 10


def several(seed, changes=None, runs=24, contests="ab"):
    """Runs of 40 rounds each: 3% between the minutes of a contest, 1% between processes."""
    rng = np.random.default_rng(seed)
    made_of = []
    for number in range(runs):
        given = made(1000 * seed + number, changes, rounds=40, contests=contests)
        for contest in contests:
            minutes = rng.normal(0, 0.03)
            for result in (r for r in given["results"] if r["contest"] == contest):
                factor = math.exp(minutes + rng.normal(0, 0.01))
                result["samples"] = [factor * seconds for seconds in result["samples"]]
        made_of.append(given)
    return made_of


def test_several_runs_on_a_restless_machine_tell_what_one_run_cannot():
    same, found, alone = Counter(), Counter(), Counter()
    for seed in range(20):
        before = several(2 * seed)
        same += compare(before, several(2 * seed + 1)).count
        after = several(2 * seed + 1, {OURS: 1.05})
        found += compare(before, after).count
        alone += compare(before[0], after[0]).count
    assert same["same"] >= 38
    assert found["slower"] >= 38
    assert alone["slower"] <= 20


def test_real_runs_of_the_same_code_are_called_same_and_a_real_slowdown_is_found(importable):
    """25 runs of each, in turn, on two cores that others use too, within an hour; of 400 cases each."""
    runs = json.loads((RESULTS / "compare-runs-cpu.json").read_text())
    unchanged, slowed, alarms = importable("shuffled_runs").shuffled(runs, times=50, seed=1)
    assert sum(unchanged.values()) == sum(slowed.values()) == 400
    assert unchanged["same"] >= 380
    assert slowed["slower"] >= 380
    assert alarms <= 2


# --- what is said -------------------------------------------------------------------------------------


def test_one_that_is_slower_and_one_that_is_faster():
    found = verdicts(made(1), made(2, {("a", OURS): 1.05, ("c", OURS): 0.9}))
    assert list(found.items()) == [
        (f"case a, {OURS}", "slower"),
        (f"case b, {OURS}", "same"),
        (f"case c, {OURS}", "faster"),
        (f"case d, {OURS}", "same"),
    ]


def test_a_slower_machine_is_no_slower_code():
    found = compare(made(1), made(2, {"all": 1.02}))
    assert {f.verdict for f in found.findings} == {"same"}
    assert found.between.shift == pytest.approx(0.02, abs=0.005)
    assert found.findings[0].explained == pytest.approx(1.02, abs=0.005)
    assert found.findings[0].median_b / found.findings[0].median_a == pytest.approx(1.02, abs=0.005)


def test_a_machine_that_moves_far_makes_all_unclear():
    found = compare(made(1), made(2, {"all": 1.3}))
    assert [(f.verdict, f.rounds_needed) for f in found.findings] == [("unclear", None)] * 4


def test_a_faster_machine_hides_no_slower_code():
    found = verdicts(made(1), made(2, {OURS: 1.05, "x": 0.98, "y": 0.98, "z": 0.98}))
    assert set(found.values()) == {"slower"}


def test_without_peers_only_large_changes_count():
    def alone(given):
        return given | {"results": [r for r in given["results"] if r["implementation"] == OURS]}

    assert set(verdicts(alone(made(1)), alone(made(2, {OURS: 2.0}))).values()) == {"unclear"}
    assert set(verdicts(alone(made(1)), alone(made(2, {OURS: 10.0}))).values()) == {"slower"}


@pytest.mark.parametrize("moved", [1.1, 1.3, 2.0])
@pytest.mark.parametrize("who", ["all", "x"])
def test_what_one_peer_did_is_no_verdict_on_ours(who, moved):
    """Neither where the machine is slower, nor where the peer itself is."""
    found = compare(made(1, contests="a", peers=1), made(2, {who: moved}, contests="a", peers=1))
    assert [f.verdict for f in found.findings] == ["unclear"]
    assert not found.changed_peers
    assert found.references == 0


def test_of_two_peers_that_disagree_neither_is_accused():
    found = compare(made(1, contests="a", peers=2), made(2, {"x": 1.3}, contests="a", peers=2))
    assert [f.verdict for f in found.findings] == ["unclear"]
    assert not found.changed_peers
    assert found.references == 2


def test_a_peer_that_changed_itself_explains_nothing_and_is_named():
    changes = {("a", "x"): 1.6}
    found = compare(made(1), made(2, changes), peers=True)
    assert found.changed_peers == ("case a, x",)
    assert found.references == 11
    by_name = {(f.case, f.implementation): f for f in found.findings}
    assert by_name["case a", OURS].references == ("y", "z")
    assert by_name["case a", "x"].verdict == "slower"
    assert {f.verdict for name, f in by_name.items() if name != ("case a", "x")} == {"same"}


def test_the_threshold_is_the_smallest_change_that_matters():
    a, b = made(1), made(2, {("a", OURS): 1.04})
    assert verdicts(a, b, threshold=0.1)[f"case a, {OURS}"] == "same"
    assert verdicts(a, b, threshold=0.02)[f"case a, {OURS}"] == "slower"


def test_the_incorrect_and_the_missing_are_named_and_not_compared():
    a, b = made(1, contests="abce"), made(2, contests="bcde")
    found = compare(incorrect(a, 4), incorrect(b, 4))  # ours in b of A, and in c of B
    assert [finding.case for finding in found.findings] == ["case e"]
    assert found.incorrect_in_a == ("case b",)
    assert found.incorrect_in_b == ("case c",)
    assert found.only_in_a[0] == "case a"
    assert found.only_in_b[-1] == "case d, z"
    assert found.worse
    assert found.lost == ("case a", "case c")
    alone = compare(a, incorrect(b, 4), only="case a")  # missing
    assert (alone.findings, alone.lost, alone.incorrect_in_b, alone.only_in_b) == ((), ("case a",), (), ())
    with pytest.raises(InvalidInput, match="no correct case in common with 'case d' in its name"):
        compare(a, b, only="case d")


def test_a_peer_that_fails_is_told_and_is_none_of_ours():
    found = compare(made(1), incorrect(made(2), 1))
    assert found.incorrect_in_b == ("case a, x",)
    assert not found.worse


def test_a_case_with_too_few_rounds_is_named():
    few = made(2)
    few["results"][0] |= {"samples": [0.01, 0.01]}
    found = compare(made(1), few)
    assert [f.case for f in found.findings] == ["case b", "case c", "case d"]
    assert found.too_few_rounds == ("case a",)
    assert found.undecided
    assert not found.worse


def test_older_records_without_contests_are_compared_too():
    path = RESULTS / "train-cpu.json"
    old = record.read(path)
    stripped = [{k: v for k, v in r.items() if k not in ("contest", "cpu_samples")} for r in old["results"]]
    old = old | {"results": stripped}
    found = compare(old, old)
    ours = [r for r in old["results"] if r["implementation"].startswith(OURS)]
    assert len(found.findings) == len(ours)
    assert not found.worse
    assert not found.changed_peers
    with pytest.raises(InvalidInput, match="without processor seconds"):
        compare(old, old, timer="cpu")


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    def write(name, given):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(given))
        return str(path)

    return write


def test_status_and_json(written, tmp_path, capsys):
    a, same, worse = (
        written("a", made(1)),
        written("same", made(2)),
        written("b", made(2, {("b", OURS): 1.1})),
    )
    assert main(["compare", a, same]) == 0
    assert "4 same" in capsys.readouterr().out
    out = tmp_path / "new" / "verdicts.json"
    assert main(["compare", a, worse, "--timer", "cpu", "--json", str(out)]) == 1
    screen = capsys.readouterr().out
    assert "slower" in screen
    assert "processor seconds" in screen
    told = json.loads(out.read_text())
    assert told["worse"] is True
    finding = next(f for f in told["findings"] if f["case"] == "case b")
    assert finding["verdict"] == "slower"
    assert finding["interval"][0] < 1.1 < finding["interval"][1]
    assert finding["family_interval"][0] < finding["interval"][0]
    assert finding["references"] == ["x", "y", "z"]
    assert finding["rounds"] == [60, 60]
    assert main(["compare", worse, a]) == 0  # faster
    assert main(["compare", a, worse, "--threshold", "20%"]) == 0
    assert main(["compare", a, worse, "--only", "case a"]) == 0
    wrong = written("wrong", incorrect(made(2), 0))
    assert main(["compare", a, wrong]) == 1
    assert main(["compare", a, wrong, "--only", "case b"]) == 0
    assert main(["compare", a, written("less", made(2, contests="bcd"))]) == 1
    far = written("far", made(2, {"all": 1.3}))
    assert main(["compare", a, far]) == 0
    assert main(["compare", a, far, "--strict"]) == 1
    assert main(["compare", a, same, "--strict"]) == 0


def test_who_reads_it_is_told_what_was_compared_and_by_whom_it_was_explained(written, tmp_path, capsys):
    from_a = MACHINE | {"commit": "0123456789abcdef", "date": "2026-01-02T03:04:05+00:00", "load": 0.5}
    a, b = made(1, machine=from_a), made(2)
    for given in (a, b):
        given["results"] = [r for r in given["results"] if r["contest"] != "a" or r["implementation"] == OURS]
    b["results"][0]["samples"] = b["results"][0]["samples"][:9]
    out = tmp_path / "verdicts.json"
    files = written("a", a), written("b", b)
    main(["compare", *files, "--json", str(out)])
    screen = capsys.readouterr().out
    assert "commit 0123456789ab, 2026-01-02T03:04:05+00:00, load 0.5, 60 rounds" in screen
    assert "commit unknown, date unknown, load unknown, 9 to 60 rounds" in screen
    assert "by 9 of other contests" in screen
    told = json.loads(out.read_text())
    assert (told["a"]["file"], told["b"]["file"]) == files
    assert told["a"]["load"] == 0.5
    assert told["b"]["rounds"] == [9, 60]


def test_a_folder_holds_several_runs_of_one_commit(tmp_path, capsys):
    for name, runs in (("before", several(1, runs=12)), ("after", several(2, {OURS: 1.2}, runs=12))):
        (tmp_path / name).mkdir()
        for number, given in enumerate(runs):
            (tmp_path / name / f"{number}.json").write_text(json.dumps(given))
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    assert main(["compare", before, after]) == 1
    screen = capsys.readouterr().out
    assert f"A: {before}, commit unknown, date unknown, load unknown, 12 runs of 40 rounds" in screen
    assert "2 slower" in screen
    assert main(["compare", before, str(tmp_path / "before" / "0.json")]) == 0  # a run and several
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match="has no record, which is a file that ends in"):
        main(["compare", before, str(tmp_path / "none")])
    other = several(3, runs=1)[0] | {"machine": MACHINE | {"commit": "abc"}}
    (tmp_path / "before" / "9.json").write_text(json.dumps(other))
    with pytest.raises(InvalidInput, match="the runs of A are not of the same code: commit unknown in one"):
        main(["compare", before, after])


def test_a_case_that_one_of_several_runs_lacks_is_no_longer_there():
    before, after = several(1, runs=3), several(2, runs=3)
    after[1] = incorrect(after[1], 0)
    found = compare(before, after)
    assert found.lost == ("case a",)
    assert [finding.case for finding in found.findings] == ["case b"]
    after[0]["results"] = [result for result in after[0]["results"] if result["contest"] == "b"]
    assert compare(before, after).lost == ("case a",)  # the first run of B knows nothing of it
    assert "case a, x" in compare(before, after).incorrect_in_b


def test_other_machines_are_compared_only_when_that_is_asked_for(written, capsys):
    versions = {"versions": {"torch": "10", "imagen-fast": "2"}}
    a, b = (
        written("a", made(1)),
        written("b", made(2, {("a", OURS): 1.2}, machine=MACHINE | {"threads": 1} | versions)),
    )
    with pytest.raises(InvalidInput) as raised:
        main(["compare", a, b])
    assert "threads 2 in A, 1 in B; torch 9 in A, 10 in B; with --across-machines" in str(raised.value)
    assert "imagen-fast" not in str(raised.value)
    assert main(["compare", a, b, "--across-machines"]) == 1
    assert "not a fair comparison: threads 2 in A, 1 in B; torch 9 in A, 10 in B" in capsys.readouterr().out


def test_peers_of_other_versions_are_refused_where_they_took_part():
    def with_opencv(seed, version, implementation):
        given = made(seed, machine=MACHINE | {"versions": {"torch": "9", "OpenCV": version}})
        results = [
            r | {"implementation": implementation if r["implementation"] == "x" else r["implementation"]}
            for r in given["results"]
        ]
        return given | {"results": results}

    assert compare(with_opencv(1, "4.11", "x"), with_opencv(2, "4.12", "x")).differences == ()
    with pytest.raises(InvalidInput, match=r"OpenCV 4\.11 in A, 4\.12 in B"):
        compare(*(with_opencv(i, f"4.1{i}", "simplejpeg, OpenCV") for i in (1, 2)))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["a.json"], "the following arguments are required: B.json"),
        (["/nowhere.json", "b.json"], "cannot be read as a record"),
        (["a.json", "b.json", "--threshold", "5 percent"], "--threshold must be a share such as 5% or 0.05"),
        (["a.json", "b.json", "--threshold", "5"], "--threshold must be a share such as 5% or 0.05, not '5'"),
        (["a.json", "b.json", "--timer", "sun"], "--timer must be one of wall, cpu, not 'sun'"),
        (["a.json", "b.json", "--only", "zz"], "no correct case in common with 'zz' in its name"),
        (["a.json", "other.json"], "A is of the suite fake, B of other"),
        (["a.json", "odd.json"], "B cannot be compared: a result in it lacks samples"),
    ],
)
def test_bad_input_gets_one_sentence(args, sentence, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written("a", made(1))
    written("b", made(2))
    written("other", made(2) | {"suite": "other"})
    written("odd", made(2) | {"results": [{"case": "a", "implementation": OURS, "correct": True}]})
    with pytest.raises(InvalidInput, match=sentence) as raised:
        main(["compare", *args])
    assert "\n" not in str(raised.value)
