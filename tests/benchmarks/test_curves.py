"""Curves of cost: their points, and their pictures."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from imagen_fast.benchmarks import curves, decode, pictures, suites
from imagen_fast.benchmarks.cli import main
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest, hold
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.decode_corpus import SMALL
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.errors import InvalidInput

CPU = torch.device("cpu")
ONCE = Effort(0, 2, 2, 0)


@pytest.fixture
def threads():
    """Contests of decoding take one thread for everyone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_suite_has_curves_that_grow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10**11))
    assert set(curves.CURVES) == {suite.module for suite in suites.SUITES.values()}
    for device in ("cpu", "cuda"):
        for suite in set(curves.CURVES) - {"decode"}:  # which has as many points as there are processors
            points: dict[str, list[float]] = {}
            names, lines, cases = [], [], []
            for contest in curves.contests(suite, torch.device(device), quick=False):
                curve = contest.contenders.args[1]
                points.setdefault(curve["name"], []).append(curve["value"])
                names.append(contest.name)
                for contender in contest.contenders():
                    lines.append((curve["name"], contender.implementation, curve["value"]))
                    cases.append((contender.case, contender.implementation))
            assert len(names) == len(set(names))
            assert len(lines) == len(set(lines)), "a line goes through two points at one place"
            assert len(cases) == len(set(cases)), "a ratio is found by its case"
            assert len(points) == len(curves.CURVES[suite])
            for values in points.values():
                assert values == sorted(set(values))
                assert len(values) >= 3
    whole, quick = (list(curves.contests("attention", CPU, quick)) for quick in (False, True))
    assert len(whole) / 2 <= len(quick) < len(whole)
    assert {contest.name for contest in quick} < {contest.name for contest in whole}


def test_a_gpu_has_no_curves_of_decoding():
    with pytest.raises(InvalidInput, match="on a CPU only"):
        next(curves.contests("decode", torch.device("cuda"), quick=True))


def test_a_point_is_checked_and_marked():
    def contenders():
        yield Contender("a", OURS, lambda: (lambda: None, Verdict(True)), {"images": 2})
        yield Contender("a", "wrong", lambda: (lambda: None, Verdict(False)))

    contest = curves.point(Contest("a", "step", contenders, ONCE), "cost of a", "rows", 8)
    ours, wrong = hold(contest, CPU)
    curve = {"name": "cost of a", "x": "rows", "value": 8}
    assert ours.facts == {"images": 2, "curve": curve, "contest": "a", "apart": False}
    assert wrong.facts["curve"] == curve
    assert wrong.timing is None


def test_all_rows_of_a_point_are_checked(monkeypatch):
    """The last ones too: of many rows those are whose index overflows first."""
    monkeypatch.setattr(curves, "ROWS", {"cpu": (9000,)})
    monkeypatch.setattr(curves.likelihood, "CPU_CASES", ((8, 16),))
    (point,) = curves.likelihood_rows(CPU)
    right = curves.likelihood.ours()

    def wrong_at_the_end():
        def loss(hidden, weight, target):
            return right(torch.cat([hidden[:8999], 2 * hidden[8999:]]), weight, target)

        return loss

    monkeypatch.setattr(curves.likelihood, "ours", wrong_at_the_end)
    assert not next(point.contenders()).prepare()[1].correct


def test_a_real_point_of_attention_has_its_peers_and_its_work(monkeypatch):
    monkeypatch.setattr(curves, "IMAGES", {"cpu": 1})
    monkeypatch.setattr(curves, "HEADS", 2)
    first = next(curves.attention_hidden_share(CPU))
    results = hold(replace(first, effort=ONCE), CPU)
    assert {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct} == {}
    assert {r.facts["curve"]["value"] for r in results} == {0.1}
    assert [r.implementation for r in results] == [OURS, f"{OURS} packed", "SDPA"]
    assert all(r.facts["operations"] > 0 for r in results)


@pytest.mark.usefixtures("threads")
def test_threads_that_share_a_batch_fill_all_of_it():
    pytest.importorskip("torchvision")
    pytest.importorskip("skimage")
    contest = decode.contest("500x375", SMALL, 3, ONCE, threads=2)
    assert contest.name.endswith(", 2 threads")
    found = [c for c in contest.contenders() if c.implementation in (OURS, "Pillow, torchvision v1")]
    assert len(found) == 2
    for contender in found:
        call, verdict = contender.prepare()
        assert verdict.correct, (contender.implementation, verdict.evidence)
        assert call().shape == (3, 3, decode.SIDE, decode.SIDE)
        assert contender.facts["threads"] == 2


# --- pictures -----------------------------------------------------------------------------------------


def result(name, grows, value, implementation, median, roofline, refused=None):
    return {
        "case": f"case {value}",
        "implementation": implementation,
        "median": median,
        "spread": 0.0,
        "samples": [] if median is None else [0.8 * median, median, 1.4 * median],
        "roofline_seconds": roofline,
        "refused": refused,
        "curve": {"name": name, "x": grows, "value": value},
    }


RECORD = {
    "machine": {
        "device": "cpu",
        "processor": "a chip",
        "threads": 3,
        "cores": 4,
        "commit": "0123456789abcdef",
        "date": "2026-01-02T03:04:05",
    },
    "ratios": [],
    "results": [
        result(name, grows, value, implementation, factor * value, roofline and value / 10)
        for name, grows, values, roofline in (
            ("cost by tokens, B4", "tokens", (16, 64, 1024), True),
            ("cost by hidden share", "hidden share", (0.1, 0.5, 0.9), False),
        )
        for value in values
        for implementation, factor in ((OURS, 1.0), ("peer", 3.0))
    ]
    + [result("cost by tokens, B4", "tokens", 4096, OURS, None, 1.0)],
}


def colours(path):
    from PIL import Image

    with Image.open(path) as image:
        assert min(image.size) > 400
        return {colour for count, colour in image.convert("RGB").getcolors(2**20) if count > 100}


def test_each_curve_is_a_picture_with_a_line_for_everyone(tmp_path):
    pytest.importorskip("matplotlib")
    made = pictures.draw(RECORD, tmp_path / "new")
    names = ["cost-by-tokens-b4-cpu.png", "cost-by-hidden-share-cpu.png"]
    assert [path.name for path in made.values()] == names
    for path in made.values():
        ours, peer = (31, 59, 115), (213, 94, 0)
        assert {ours, peer, (255, 255, 255)} <= colours(path)


def drawn(record, folder, monkeypatch):
    """The figures themselves, and the files they would be."""
    pytest.importorskip("matplotlib")
    found = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: found.append((figure, path.name)))
    pictures.draw(record, folder)
    return found


def test_a_picture_says_where_it_was_measured(tmp_path, monkeypatch):
    on_gpu = RECORD | {"machine": RECORD["machine"] | {"device": "cuda", "gpu": "A GPU", "driver": "1.2"}}
    (cpu, cpu_file), (gpu, gpu_file) = (drawn(r, tmp_path, monkeypatch)[0] for r in (RECORD, on_gpu))
    assert cpu_file != gpu_file
    assert cpu.axes[0].get_title() == "cost by tokens, B4, CPU"
    assert gpu.axes[0].get_title() == "cost by tokens, B4, A GPU"
    note = " ".join(gpu._supxlabel.get_text().split())
    for part in ("A GPU", "driver 1.2", "a chip, 3 threads on 4 cores", "commit 0123456789ab", "2026-01-02"):
        assert part in note


def test_bars_are_quartiles_and_what_is_refused_has_a_ring(tmp_path, monkeypatch):
    at = {"name": "cost", "grows": "rows", "roofline": 3.0}
    results = [
        result(value=8, implementation=OURS, median=1.0, refused="150% of the roofline", **at),
        result(value=16, implementation=OURS, median=4.0, **at),
    ]
    ((figure, _),) = drawn(RECORD | {"results": results}, tmp_path, monkeypatch)
    (axis,) = figure.axes
    (bars,) = axis.containers
    ends = [segment[:, 1].tolist() for segment in bars[2][0].get_segments()]
    assert ends == [pytest.approx([900, 1200]), pytest.approx([3600, 4800])]
    (ring,) = (line for line in axis.lines if line.get_label() == pictures.REFUSED)
    assert ring.get_xydata().tolist() == [[8, 1000]]


@pytest.mark.parametrize("times", [(0.0029, 0.0030), (0.003, 0.03), (1e-6, 1.0)])
def test_an_axis_has_two_ticks_at_least(times, tmp_path, monkeypatch):
    results = [result("cost", "rows", 8 * (1 + n), OURS, time, None) for n, time in enumerate(times)]
    ((figure, _),) = drawn(RECORD | {"results": results}, tmp_path, monkeypatch)
    (axis,) = figure.axes
    low, high = axis.get_ylim()
    assert sum(low <= tick <= high for tick in axis.get_yticks()) >= 2


def test_a_time_that_was_not_measured_is_no_point():
    found = pictures.curves(RECORD)
    assert [entry["curve"]["value"] for entry in found["cost by tokens, B4"]] == [16, 16, 64, 64, 1024, 1024]


def test_the_report_links_them_from_where_it_stands(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file, folder = tmp_path / "r.json", tmp_path / "docs" / "pictures"
    file.write_text(json.dumps(RECORD))
    readme = tmp_path / "docs" / "page.md"
    folder.mkdir(parents=True)
    readme.write_text("<!-- figures:r -->\n<!-- /figures -->\n")
    assert main(["report", str(file), "--readme", str(readme), "--pictures", str(folder)]) == 0
    assert "\n![cost by tokens, B4, CPU](pictures/cost-by-tokens-b4-cpu.png)\n" in readme.read_text()
    assert main(["report", str(file), "--pictures", str(folder)]) == 0
    assert "cost-by-hidden-share-cpu.png)" in capsys.readouterr().out


def test_a_record_without_curves_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="has no curves"):
        pictures.draw({"results": []}, tmp_path)


@pytest.mark.parametrize(
    ("value", "grows", "text"),
    [
        (0.75, "hidden share", "75%"),
        (197, "tokens", "197"),
        (65536, "rows", "65.5k"),
        (4915200, "pixels", "4.92M"),
    ],
)
def test_numbers_on_an_axis(value, grows, text):
    assert pictures._short(value, grows) == text
