"""Whatever a recording lacks or holds, there is a page, a picture and a comparison."""

from __future__ import annotations

import copy
import html
import re

import pytest
from recordings import cpu_run, empty_run, gpu_run

from imagen_fast.profiling import colours, page
from imagen_fast.profiling.diff import compare
from imagen_fast.profiling.findings import BOTTLENECKS, Summary, Verdict, to_dict
from imagen_fast.profiling.recording import Op, Peaks


def lacks(name):
    def change(recording, summary, verdict):
        setattr(recording, name, [] if name == "steps" else None)

    return change


def one_step(recording, summary, verdict):
    for name in ("end", "seconds", "data", "data_cpu", "images"):
        del getattr(recording.steps[0], name)[1:]


def one_sample(recording, summary, verdict):
    samples = recording.samples
    for series in (samples.host, samples.gpus[0].series):
        series.update({name: values[:1] for name, values in series.items()})
    samples.time = samples.time[:1]


def nothing_readable(recording, summary, verdict):
    for series in (recording.samples.host, recording.samples.gpus[0].series):
        series.update({name: [None] * len(values) for name, values in series.items()})


def not_numbers(recording, summary, verdict):
    recording.samples.gpus[0].series["power"][5] = float("nan")
    recording.steps[0].data[3] = float("inf")


def no_time(recording, summary, verdict):
    recording.seconds = 0.0
    recording.steps[0].seconds = [0.0] * len(recording.steps[0].seconds)


def unknown_quantity(recording, summary, verdict):
    recording.samples.host["of_tomorrow"] = list(map(float, range(len(recording.samples.time))))


def ops_of_no_time(recording, summary, verdict):
    recording.window.ops = [Op("a", "matrix", 1, 0.0, 1e9, 1e9, 1e6, "bfloat16")]


def one_peak_only(recording, summary, verdict):
    recording.peaks = Peaks("chip", "measured here", {}, 1e12)


def no_bandwidth(recording, summary, verdict):
    recording.peaks = Peaks("chip", "measured here", {"bfloat16": 1e15})


def above_its_roof(recording, summary, verdict):
    recording.window.ops[0].seconds /= 3


def long_words(recording, summary, verdict):
    recording.command = ["python", "x" * 400]
    recording.window.ops[0].name = "op_" + "y" * 300
    recording.machine["processor"] = "z" * 300
    verdict.evidence.append("w" * 300)


def many_ops(recording, summary, verdict):
    op = recording.window.ops[4]
    recording.window.ops += [
        Op(f"op {at}", op.kind, 4, 1e-4 * at, 1e8 * at, 1e8, 1e7, op.dtype) for at in range(90)
    ]


def only_batches(recording, summary, verdict):
    recording.steps[0].boundary = "batch"


def failed(recording, summary, verdict):
    recording.exit_code = 3


CHANGES = [
    *(lacks(name) for name in ("window", "ceilings", "peaks", "steps", "exit_code")),
    *(one_step, one_sample, nothing_readable, not_numbers, no_time, unknown_quantity, ops_of_no_time),
    *(one_peak_only, no_bandwidth, above_its_roof, long_words, many_ops, only_batches, failed),
]


@pytest.fixture(scope="module")
def healthy():
    return gpu_run(samples=60)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_there_is_always_a_page(browser, healthy, change, tmp_path):
    recording, summary, verdict = copy.deepcopy(healthy)
    change(recording, summary, verdict)
    page.write(recording, summary, verdict, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert not re.search(
        r"\b(nan|inf|None)\b", re.sub(r"<script>.*?</script>|base64,[^\"]*", "", text, flags=re.S)
    )
    browser.open(tmp_path / "page.html", 400)
    assert browser.complaints() == []
    assert browser.ask("document.documentElement.scrollWidth") <= 400
    kept = recording.to_dict() | to_dict(summary, verdict)
    compare(kept, kept)
    told = {
        "failed": "The program failed with exit code 3",
        "only_batches": "A step ends with its batch",
        "above_its_roof": "refused, since it lies above its roof",
        "many_ops": "show all 104",
    }
    assert told.get(change.__name__, "Verdict") in html.unescape(text)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_every_verdict_has_its_colour_and_sentence(bottleneck, tmp_path):
    recording, _, _ = empty_run()
    page.write(recording, Summary(shares={bottleneck: 1.0}), Verdict(bottleneck, 0.4), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f'class="hero cause-{bottleneck}"' in text
    assert "40% (low)" in text
    assert bottleneck in colours.CAUSES


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", colours.CAUSES)
def test_labels_stand_out_on_the_colours(name):
    """WCAG 2.2, 1.4.3; `--on-bar` of page.css."""
    light, dark = colours.CAUSES[name]
    assert 1.05 / (luminance(light) + 0.05) >= 4.5
    assert (luminance(dark) + 0.05) / (luminance("#101013") + 0.05) >= 4.5


def test_the_rest_of_a_long_table_is_shown_on_demand(browser, healthy, tmp_path):
    recording, summary, verdict = copy.deepcopy(healthy)
    many_ops(recording, summary, verdict)
    page.write(recording, summary, verdict, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    rows = "[...document.querySelectorAll('.sortable tbody tr')].filter((row) => !row.hidden).length"
    assert browser.ask(rows) == 20
    # The rows that are open are the first of the new order.
    browser.click(".sortable th:nth-child(6) button")
    assert browser.ask(rows) == 20
    browser.click(".more")
    assert browser.ask(rows) == 104
    # Without the script there is no button that does nothing.
    browser.open(tmp_path / "page.html", script=False)
    assert browser.ask(rows) == 104
    assert browser.ask("document.querySelector('.more').getClientRects().length") == 0


def test_it_prints(browser, tmp_path):
    page.write(*cpu_run(), tmp_path / "page.html")
    browser.open(tmp_path / "page.html", dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    # Ink on paper, though the screen was dark.
    assert browser.ask("getComputedStyle(document.body).color") == "rgb(22, 22, 26)"
    assert browser.ask("document.querySelector('.script-only').getClientRects().length") == 0
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
