"""Verdicts on what bottlenecks.py recorded: programs that were held up by one thing, on purpose."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest

from imagen_fast.profiling.events import Event, read
from imagen_fast.profiling.operations import Call
from imagen_fast.profiling.recording import Recording
from imagen_fast.profiling.summary import summarise
from imagen_fast.profiling.verdict import judge

TRACES = sorted((Path(__file__).parent / "traces").glob("*.json"))


def judged(trace):
    """By today's reading of the events that were recorded."""
    kept = json.loads(trace.read_text())
    recording = Recording.from_dict(kept)
    recording.window = window(trace)
    summary = summarise(recording)
    return kept["bottleneck"], recording, summary, judge(recording, summary)


@cache
def window(trace):
    with gzip.open(trace.with_suffix(".events.json.gz")) as file:
        kept = json.load(file)
    events = [
        Event(name, begin / 1e6, end / 1e6, *rest, None if call is None else Call(name, *call), note)
        for name, begin, end, *rest, note, call in kept["events"]
    ]
    return read(events, kept["steps"], kept["handing_out"])


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.stem)
def test_its_events_are_read_as_when_it_was_recorded(trace):
    then, now = Recording.from_dict(json.loads(trace.read_text())).window, window(trace)
    assert (now.device, now.steps, now.launches) == (then.device, then.steps, then.launches)
    assert now.timeline == pytest.approx(then.timeline, rel=0.01, abs=1e-4)


def test_there_are_enough_of_them():
    assert len(TRACES) >= 10
    assert len({judged(trace)[0] for trace in TRACES}) >= 8


def test_nine_of_ten_verdicts_are_right():
    found = {trace.stem: judged(trace) for trace in TRACES}
    wrong = {
        name: verdict.bottleneck
        for name, (truth, *_, verdict) in found.items()
        if verdict.bottleneck != truth
    }
    assert len(wrong) <= len(found) // 10, wrong


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.stem)
def test_each_has_its_reasons(trace):
    _, _, summary, verdict = judged(trace)
    assert sum(summary.shares.values()) == pytest.approx(1, abs=0.01)
    assert 0.5 <= verdict.confidence <= 1
    assert len(verdict.evidence) >= 2
    assert 1 <= len(verdict.changes) <= 3
    gains = [change.gain for change in verdict.changes if change.gain is not None]
    assert gains == sorted(gains, reverse=True)
    assert all(gain > 1 for gain in gains)
    for share in (summary.mfu, summary.hfu):
        assert share is None or 0 < share <= 1


def test_without_the_window_it_is_less_sure_and_does_not_guess_the_work():
    for trace in TRACES:
        truth, recording, summary, before = judged(trace)
        recording.window, recording.absent["window"] = None, "taken away by the test"
        summary = summarise(recording)
        verdict = judge(recording, summary)
        if truth in ("data", "decoding", "paused", "throttled"):
            assert verdict.bottleneck == truth, trace.stem
            assert verdict.confidence < before.confidence
        else:
            assert verdict.bottleneck == "unknown", trace.stem
