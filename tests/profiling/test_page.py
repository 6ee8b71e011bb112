"""The page as a browser shows it."""

from __future__ import annotations

import base64
import html
import json
import re

import pytest
from recordings import gpu_run

from imagen_fast.profiling import numbers, page
from imagen_fast.profiling.diff import compare
from imagen_fast.profiling.findings import to_dict
from imagen_fast.profiling.page.over_time import steps_section
from imagen_fast.profiling.recording import Recording, Samples, Steps

NAMES = ("gpu", "gpus", "cpu", "empty", "long")
SECTIONS = (
    *(
        "verdict",
        "changes",
        "figures",
        "shares",
        "steps",
        "machine",
        "operations",
        "facts",
        "absent",
        "download",
    ),
)
# WCAG 2.2, 1.4.3, as a browser computes the colours of what it shows.
CONTRAST = """
(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((c) => c / 255)
      .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('script, .stacked, #tip, .skip') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const [one, other] = [light(e.closest('svg') ? style.fill : style.color), light(behind(e))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.className.baseVal ?? e.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
})()
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_page_opens_quickly_and_quietly(browser, pages, name):
    assert pages[name].stat().st_size < 3e6
    assert browser.open(pages[name]) < 3
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.ask("[...document.querySelectorAll('h2')].map((e) => e.id)") == list(SECTIONS)
    assert browser.ask("document.querySelectorAll('h2 ~ *').length") > len(SECTIONS)


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows(browser, pages, name, width):
    browser.open(pages[name], width)
    browser.ask("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    # What a table has beyond its own scrolling box is within reach; anything else would be cut off.
    beyond = browser.ask(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scrolls, .curves'))"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML)"
    )
    assert beyond == []


def test_that_reads_without_javascript(browser, pages):
    browser.open(pages["gpu"], script=False)
    text = browser.ask("document.body.innerText")
    for shown in (
        "Compute-bound: the arithmetic units are busy.",
        "36.6%",
        "custom::mystery",
        "up to 1.08× as fast",
    ):
        assert shown in text
    assert browser.ask("document.querySelectorAll('tbody tr').length") == 14
    assert browser.ask("document.querySelector('.script-only').getClientRects().length") == 0


def test_what_comes_from_outside_is_text(browser, pages):
    browser.open(pages["gpu"])
    assert browser.ask("document.querySelectorAll('script').length") == 1
    assert "<script>alert(1)</script>" in browser.ask("document.querySelector('header').innerText")
    assert "<script>alert('op')</script>" in browser.ask("document.querySelector('.sortable').innerText")
    assert not any(event.get("method") == "Page.javascriptDialogOpening" for event in browser.events)


def column(browser, number):
    return browser.ask(
        "[...document.querySelectorAll('.sortable tbody tr')].map((row) => "
        f"row.cells[{number}].dataset.value ?? row.cells[{number}].textContent)"
    )


def test_the_table_is_sorted_by_a_click(browser, pages):
    browser.open(pages["gpu"])
    times = list(map(float, column(browser, 3)))
    assert times == sorted(times, reverse=True)
    head = ".sortable th:nth-child(3) button"
    browser.click(head)
    calls = list(map(float, column(browser, 2)))
    assert calls == sorted(calls, reverse=True)
    assert calls != sorted(calls)
    browser.click(head)
    assert list(map(float, column(browser, 2))) == sorted(calls)
    assert browser.ask("document.querySelector('.sortable th:nth-child(3)').ariaSort") == "ascending"
    browser.click(".sortable th:nth-child(1) button")
    names = column(browser, 0)
    assert names == sorted(names, key=str.lower)


def test_hovering_shows_the_value(browser, pages):
    recording, _, _ = gpu_run()
    browser.open(pages["gpu"])
    power = '.over-time:has([data-source="samples.gpus.0.series.power"]) > svg'
    box = browser.place(power)
    browser.pointer("mouseMoved", box["x"] + box["width"] * 0.75, box["y"] + 20)
    at = min(
        range(len(recording.samples.time)),
        key=lambda at: abs(recording.samples.time[at] - 0.75 * recording.seconds),
    )
    value = numbers.text(recording.samples.gpus[0].series["power"][at], "W")
    assert f"power: {value}" in browser.ask("document.getElementById('tip').innerText")
    browser.pointer("mouseMoved", 2, 2)
    assert browser.ask("document.getElementById('tip').hidden")
    # A reading that failed is said to be unknown, not drawn from its neighbours.
    browser.place(power)
    gap = len(recording.samples.time) // 2
    assert recording.samples.gpus[0].series["power"][gap] is None
    along = recording.samples.time[gap] / recording.seconds
    box = browser.place(power)
    browser.pointer("mouseMoved", box["x"] + box["width"] * along, box["y"] + 20)
    assert "power: unknown" in browser.ask("document.getElementById('tip').innerText")
    dot = browser.place(".dot")
    browser.pointer("mouseMoved", dot["x"] + dot["width"] / 2 + 12, dot["y"] + dot["height"] / 2)
    assert "operations a byte" in browser.ask("document.getElementById('tip').innerText")


def test_numbers_are_written_alike_in_python_and_javascript(browser, pages):
    browser.open(pages["gpu"])
    # No ties: Python rounds those to even, JavaScript up.
    values = [
        0.0,
        0.00012,
        0.0049,
        0.51,
        0.99951,
        0.99949,
        1.0,
        12.3456,
        99.96,
        999.6,
        61.2e9,
        4.7e-7,
        7326.0,
    ]
    units = ["share", "seconds", "bytes", "bytes/s", "Hz", "W", "°C", "cores", ""]
    wanted = [[numbers.text(value, unit) for value in values] for unit in units]
    script = f"{json.dumps(units)}.map((unit) => {json.dumps(values)}.map((value) => written(value, unit)))"
    assert browser.ask(script) == wanted


def test_the_time_axis_is_zoomed_and_shown_whole_again(browser, pages):
    browser.open(pages["gpu"])
    ticks = "[...document.querySelectorAll('.wide .x-tick')].map((e) => e.textContent)"
    first = ".wide [data-source='steps.0.seconds']"
    whole, drawn = browser.ask(ticks), browser.ask(f'document.querySelector("{first}").getAttribute("d")')
    box = browser.place(".wide > svg")
    y = box["y"] + 60
    browser.pointer("mouseMoved", box["x"] + box["width"] * 0.5, y)
    browser.pointer("mousePressed", box["x"] + box["width"] * 0.5, y, "left")
    browser.pointer("mouseMoved", box["x"] + box["width"] * 0.75, y, "left")
    browser.pointer("mouseReleased", box["x"] + box["width"] * 0.75, y, "left")
    views = browser.ask(
        "[...new Set([...document.querySelectorAll('.curves')].map((e) => e.getAttribute('viewBox')))]"
    )
    assert len(views) == 1  # all charts together
    start, _, width, _ = map(float, views[0].split())
    assert (start, width) == (pytest.approx(500, abs=5), pytest.approx(250, abs=5))
    assert browser.ask(ticks) != whole
    assert browser.ask(f'document.querySelector("{first}").getAttribute("d")') != drawn
    browser.key("Escape")
    assert browser.ask(ticks) == whole
    assert browser.ask(f'document.querySelector("{first}").getAttribute("d")') == drawn


def test_where_steps_are_left_out_the_lines_break():
    """Of ten steps of a second each, and a minute in which the profiler itself was busy."""
    ends = [float(end) for end in (*range(1, 6), *range(66, 71))]
    steps = Steps(pid=1, end=ends, seconds=[1.0] * 10, data=[0.1] * 10, data_cpu=[0.0] * 10, images=[4] * 10)
    samples = Samples(interval=1.0, time=[], host={}, gpus=[])
    section = str(steps_section(Recording(["python"], "", 71.0, {}, samples, steps=[steps])))
    path = re.search(r'd="([^"]*)"[^>]*data-source="steps\.0\.seconds"', section)[1]
    assert path.count("M") == 2


def test_charts_are_read_by_the_keyboard(browser, pages):
    browser.open(pages["gpu"])
    browser.ask("document.querySelector('.small > svg').focus()")
    browser.key("ArrowRight")
    first = browser.ask("document.getElementById('tip').innerText")
    browser.key("ArrowRight")
    second = browser.ask("document.getElementById('tip').innerText")
    assert first.startswith("at 0 s")
    assert second.startswith("at 0.500 s")


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(browser, pages, dark):
    browser.open(pages["gpu"], dark=dark)
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == dark
    assert browser.ask(CONTRAST) == []


def test_every_picture_says_what_it_is(browser, pages):
    browser.open(pages["gpus"], script=False)
    named = browser.ask(
        "[...document.querySelectorAll('svg[role=img]')].map((e) => e.getAttribute('aria-labelledby'))"
        ".map((ids) => ids.split(' ').map((id) => [...document.querySelectorAll('#' + id)]))"
        ".map((ids) => ids.map((of) => of.length === 1 && of[0].textContent))"
    )
    assert len(named) > 100
    assert all(title and told for title, told in named)
    assert browser.ask("[...document.querySelectorAll('th')].every((e) => ['row', 'col'].includes(e.scope))")


def carried(path):
    address = re.search(r'href="data:application/json;base64,([^"]+)"', path.read_text()).group(1)
    return json.loads(base64.b64decode(address))


def test_the_page_carries_its_profile(pages):
    recording, summary, verdict = gpu_run()
    kept = carried(pages["gpu"])
    again = Recording.from_dict(kept)
    assert again.steps[0].seconds == pytest.approx(recording.steps[0].seconds, rel=1e-6)
    assert again.command == recording.command
    assert kept["verdict"] == to_dict(summary, verdict)["verdict"]
    # Too long to be carried whole: the copy says so, and keeps the course.
    long, _, _ = gpu_run(samples=100_000)
    thinned = Recording.from_dict(carried(pages["long"]))
    ratio = round(thinned.samples.interval / long.samples.interval)
    assert ratio > 1
    assert f"the mean of {ratio}" in pages["long"].read_text()
    power = thinned.samples.gpus[0].series["power"]
    assert sum(power) / len(power) == pytest.approx(612, rel=0.01)


def test_what_is_missing_is_said(pages):
    text = pages["empty"].read_text()
    assert text.count("the program did not use PyTorch") >= 6
    assert "the program ended before the first sample" in text
    cpu = pages["cpu"].read_text()
    assert "no roof: the peak of a chip is unknown" in cpu
    assert "refused" in cpu
    assert "it would be 104% of the measured peak" in cpu
    assert "not measured: CUDA graphs need a GPU" in cpu
    gpu = pages["gpu"].read_text()
    # 142% of the memory's peak.
    assert "142% of memory" in html.unescape(re.sub(r"<[^>]*>", " ", gpu)).replace("  ", " ")


def test_a_comparison_is_a_page(browser, tmp_path):
    one, other = (
        recording.to_dict() | to_dict(summary, verdict)
        for recording, summary, verdict in (gpu_run(), gpu_run(step=0.19, seed=2))
    )
    page.write_diff(compare(one, other), tmp_path / "diff.html")
    for width in (400, 1400):
        browser.open(tmp_path / "diff.html", width)
        assert browser.complaints() == []
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask("document.querySelector('.verdict').innerText").startswith("Slower: a step takes")
