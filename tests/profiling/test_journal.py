"""The notes of one process: what they cost, how long they grow, and that they are written whole."""

import json
import threading
import time

import numpy as np
import pytest
from programs import only

from imagen_fast.profiling import program
from imagen_fast.profiling.task import Task


def test_what_is_noted_of_a_step_costs_next_to_nothing(tmp_path):
    """In a loop of nothing else; some ten times as much where a step's operations have emptied the caches."""
    from imagen_fast.profiling import journal, processor_time

    notes = journal.Journal(Task(tmp_path, time.monotonic(), 0, False))
    batch = {"images": np.zeros((4, 3, 8, 8)), "labels": np.zeros(4)}
    taken = []
    for _ in range(20):
        begun = time.thread_time()
        for _ in range(100):
            notes.fetch(batch, lambda: batch, processor_time.of_thread, 0)
            notes.updated(notes)
        taken.append((time.thread_time() - begun) / 100)
    notes.close()
    assert min(taken) < 12e-6, taken


def test_a_long_run_keeps_few_steps(tmp_path, monkeypatch):
    from imagen_fast.profiling import journal

    monkeypatch.setattr(journal, "_MOST_STEPS", 100)
    notes = journal.Journal(Task(tmp_path, time.monotonic(), 0, False))
    for _ in range(1001):
        notes.step(images=3)
    notes.close()
    steps = only(program.collect(tmp_path))
    assert steps.every == 16
    assert 50 <= len(steps.end) <= 100
    assert set(steps.images) == {3}
    assert steps.end == sorted(steps.end)


@pytest.mark.parametrize(
    ("batch", "images"),
    [
        ((np.zeros((8, 3, 4, 4)), np.zeros(8)), 8),
        ({"labels": np.zeros(6), "pixels": np.zeros((6, 3, 4, 4))}, 6),
        (([np.zeros((3, 5, 7)), np.zeros((3, 9, 4))], [{"boxes": np.zeros((2, 4))}, {}]), 2),
        ([[np.zeros((5, 10)), np.zeros(5)]], 5),
        ("words", 0),
    ],
)
def test_images_in_a_batch(batch, images):
    from imagen_fast.profiling.journal import images_in

    assert images_in(batch) == images


def test_what_is_written_while_steps_come_is_whole(tmp_path):
    from imagen_fast.profiling import journal

    notes = journal.Journal(Task(tmp_path, time.monotonic(), 0, False))
    notes.step()
    notes.step()
    writing = threading.Thread(target=lambda: [notes.write() for _ in range(100)])
    writing.start()
    while writing.is_alive():
        notes.step(images=1)
    steps = only(program.collect(tmp_path))
    notes.close()
    assert len({len(values) for values in (steps.end, steps.seconds, steps.data, steps.images)}) == 1


def test_what_is_written_is_whole(tmp_path):
    from imagen_fast.profiling import journal

    notes = journal.Journal(Task(tmp_path, time.monotonic(), 0, False))
    notes.step()
    notes.step()
    notes.close()
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())["steps"]["end"]) == 1
