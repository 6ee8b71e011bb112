"""What a program notes of itself while it is profiled, and that it runs as it does by itself."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from imagen_fast.profiling import program
from imagen_fast.profiling.task import Task

PRELUDE = """
import time, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)

class Images(Dataset):
    def __init__(self, count, seconds=0.0):
        self.count, self.seconds = count, seconds
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        time.sleep(self.seconds)
        return torch.zeros(3, 4, 4), index

model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def learn(images):
    model(images).sum().backward()
    optimizer.step()
"""


@pytest.fixture
def profiled(tmp_path):
    """Runs Python code under the profiler: what it collected, and the finished process."""

    def run(code, *, prelude=PRELUDE, window=0, ceilings=False, **variables):
        script = tmp_path / "program.py"
        script.write_text(prelude + textwrap.dedent(code))
        asked = program.environment(tmp_path, time.monotonic(), window=window, ceilings=ceilings)
        asked |= {
            name: os.pathsep.join([asked[name], value]) if name in asked else value
            for name, value in variables.items()
        }
        ended = subprocess.run(
            [sys.executable, script], env=os.environ | asked, capture_output=True, text=True, cwd=tmp_path
        )
        return program.collect(tmp_path), ended

    return run


def only(collected):
    (steps,) = collected.steps
    return steps


def test_steps_of_a_loop(profiled):
    found, ended = profiled(
        """
        other = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, (images, labels) in enumerate(DataLoader(Images(96, 0.002), batch_size=4)):
            model(images).sum().backward()
            if step % 2:
                optimizer.step()  # of two batches, and of two optimisers
                other.step()
        """,
        window=2,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    steps = only(found)
    assert steps.boundary == "optimizer"
    assert len(steps.end) == 12 - 1 - 2  # the first has no beginning; of two every operation was recorded
    assert set(steps.images) == {8}
    assert steps.workers == 0
    assert all(0.016 < data < seconds for data, seconds in zip(steps.data, steps.seconds, strict=True))
    assert sum(steps.data_cpu) < 0.5 * sum(steps.data)  # it slept
    assert found.window.steps == 2
    assert found.window.timeline["data"] > 2 * 0.016
    assert found.machine["threads"] == 1
    assert found.absent == {"ceilings": "they were not asked for (--ceilings)"}


def test_workers_of_a_loader_write_nothing_themselves(profiled, tmp_path):
    found, ended = profiled(
        """
        for images, labels in DataLoader(Images(40), batch_size=4, num_workers=1):
            learn(images)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert only(found).workers == 1
    assert len(list(tmp_path.glob("process-*.json"))) == 1


def test_inference_steps_end_with_a_batch(profiled):
    found, _ = profiled(
        """
        for images, labels in DataLoader(Images(40), batch_size=4):
            model(images)
        """
    )
    steps = only(found)
    assert (steps.boundary, set(steps.images)) == ("batch", {4})
    assert len(steps.end) == 10


def test_batches_before_the_first_update_are_no_steps(profiled):
    found, _ = profiled(
        """
        for images, labels in DataLoader(Images(40), batch_size=4):
            model(images)
        for images, labels in DataLoader(Images(24), batch_size=8):
            learn(images)
        """
    )
    steps = only(found)
    assert (steps.boundary, steps.images) == ("optimizer", [8, 8])


def test_ceilings_are_measured_and_change_nothing(profiled):
    found, ended = profiled(
        """
        held_out = DataLoader(Images(3), batch_size=1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5 * 30)
        for epoch in range(5):  # of which none ends where a phase does
            seen = []
            for step, (images, labels) in enumerate(DataLoader(Images(60, 0.005), batch_size=2)):
                learn(images)
                schedule.step()
                seen += labels.tolist()
                if step % 10 == 0:
                    assert [int(label) for _, label in held_out] == [0, 1, 2]
            assert seen == list(range(60))
        """,
        ceilings=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert found.ceilings.rounds == 2
    assert found.ceilings.as_is > 0.010
    assert found.ceilings.in_memory < 0.5 * found.ceilings.as_is


def test_batches_that_were_drawn_outlive_the_recording(profiled):
    _, ended = profiled(
        """
        from imagen_fast.profiling import journal, program

        seen, left = [], []
        for images, labels in DataLoader(Images(200), batch_size=2):
            learn(images)
            seen += labels.tolist()
            ahead = journal.current() and journal.current().phases._ahead
            if ahead and ahead.batches:
                left.append(len(ahead.batches))
                program.detach()
        assert seen == list(range(200))
        print(left)
        """,
        ceilings=True,
    )
    assert (ended.stderr, ended.stdout) == ("", "[7]\n")


def test_what_was_drawn_of_an_epoch_that_is_left_is_gone(profiled):
    _, ended = profiled(
        """
        from imagen_fast.profiling import journal

        loader = DataLoader(Images(200), batch_size=2, num_workers=1, persistent_workers=True)
        left = []
        for epoch in range(2):
            for step, (images, labels) in enumerate(loader):
                assert labels.tolist() == [2 * step, 2 * step + 1]
                learn(images)
                ahead = journal.current().phases._ahead
                if ahead and ahead.batches:
                    left.append(len(ahead.batches))
                    break
        print(left)
        """,
        ceilings=True,
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith("[7")


def test_an_error_of_the_loader_comes_where_it_would_have_come(profiled):
    _, ended = profiled(
        """
        class Broken(Images):
            def __getitem__(self, index):
                if index == 50:
                    raise OSError("the disk is gone")
                return super().__getitem__(index)

        seen = 0
        try:
            for images, labels in DataLoader(Broken(100), batch_size=2):
                learn(images)
                seen += 1
        except OSError as error:
            print(seen, error)
        """,
        ceilings=True,
    )
    assert (ended.stderr, ended.stdout) == ("", "25 the disk is gone\n")


def test_the_programs_own_profiler_comes_first(profiled):
    found, ended = profiled(
        """
        for step, (images, labels) in enumerate(DataLoader(Images(80), batch_size=4)):
            if step == 12:
                with torch.profiler.profile() as theirs:
                    learn(images)
                assert any(event.key == "aten::addmm" for event in theirs.key_averages())
            else:
                learn(images)
        """,
        window=5,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert found.window is None
    assert found.absent["window"] == "the program uses torch.profiler itself"


def test_workers_that_start_while_a_window_is_open_record_nothing(profiled):
    found, ended = profiled(
        """
        import os

        class Watching(Images):
            def __getitem__(self, index):
                assert os.getpid() == parent or not torch._C._autograd._profiler_enabled()
                return super().__getitem__(index)

        parent = os.getpid()
        for epoch in range(8):
            for images, labels in DataLoader(Watching(12), batch_size=4, num_workers=1):
                learn(images)
        """,
        window=4,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert found.window is None
    assert "started other processes" in found.absent["window"]


@pytest.mark.parametrize("warmup", [1, 2])
def test_a_profiler_that_warms_up_comes_first_too(profiled, warmup):
    _, ended = profiled(
        f"""
        schedule = torch.profiler.schedule(wait=10, warmup={warmup}, active=3)
        with torch.profiler.profile(schedule=schedule) as theirs:
            for images, labels in DataLoader(Images(80), batch_size=4):
                learn(images)
                theirs.step()
        assert any(event.key == "aten::addmm" for event in theirs.key_averages())
        """,
        window=5,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_failure_of_ours_is_none_of_the_program(profiled):
    found, ended = profiled(
        """
        from imagen_fast.profiling import journal

        def fail(batch):
            raise ZeroDivisionError("as a test")

        journal.images_in = fail
        for images, labels in DataLoader(Images(40), batch_size=4):
            learn(images)
        print("done")
        """,
        RANK="",
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    why = "the profiler failed in the program: ZeroDivisionError: as a test"
    assert ended.stderr == f"imagen-fast profile: {why}\n"
    assert found.absent["steps"] == why


def test_a_forked_process_that_trains_is_seen(profiled):
    found, ended = profiled(
        """
        import multiprocessing

        def train():
            for images, labels in DataLoader(Images(40), batch_size=4):
                learn(images)

        process = multiprocessing.get_context("fork").Process(target=train)
        process.start()
        process.join()
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    # Its first update is the first that is known of it, and the one after it ends a step.
    assert len(only(found).end) == 9


def test_optimisers_that_step_inside_the_backward_pass(profiled):
    found, ended = profiled(
        """
        model = nn.Sequential(nn.Flatten(), *(nn.Linear(48, 48) for _ in range(12)))
        for weight in model.parameters():
            own = torch.optim.SGD([weight], lr=0.1)
            weight.register_post_accumulate_grad_hook(lambda w, own=own: own.step())
        for images, labels in DataLoader(Images(120), batch_size=4):
            model(images).sum().backward()
        """,
        window=3,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(only(found).end) == 29
    assert "inside the backward pass" in found.absent["window"]


def test_images_of_a_validation_are_not_trained_on(profiled):
    found, _ = profiled(
        """
        held_out = DataLoader(Images(64), batch_size=32)
        for images, labels in DataLoader(Images(40), batch_size=4):
            for others, labels in held_out:
                pass
            for images, labels in DataLoader(Images(4), batch_size=4):
                learn(images)
        """
    )
    assert set(only(found).images) == {4}


def test_a_program_without_pytorch_gets_none(profiled, tmp_path):
    users = tmp_path / "users"
    users.mkdir()
    (users / "sitecustomize.py").write_text("print('the one of the user')\n")
    found, ended = profiled(
        """
        import sys
        print('torch' in sys.modules, sys.modules['sitecustomize'].__file__)
        sys.exit(7)
        """,
        prelude="",
        PYTHONPATH=str(users),
    )
    assert ended.returncode == 7
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["the one of the user", f"False {users / 'sitecustomize.py'}"]
    assert found.steps == []
    assert "no process of the program was seen to take batches" in found.absent["steps"]


def test_our_loader_and_optimiser(profiled):
    found, ended = profiled(
        """
        from pathlib import Path
        from PIL import Image
        from imagen_fast.data import Loader, open_source
        from imagen_fast.train import MasterAdamW

        Path("photos").mkdir()
        for number in range(8):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(f"photos/{number}.jpg")
        ours = MasterAdamW(model, torch.float32)
        with Loader(open_source("photos"), 4, 4, threads=1) as loader:
            for _, batch in zip(range(12), loader.batches()):
                model(batch.images.float()).sum().backward()
                ours.step(0.1)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    steps = only(found)
    assert (steps.boundary, set(steps.images), steps.workers) == ("optimizer", {4}, 1)
    assert len(steps.end) == 11


def test_what_is_noted_of_a_step_costs_next_to_nothing(tmp_path):
    """Less than 1% of a step of 3 ms, of which few are as short."""
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
    assert min(taken) < 30e-6, taken


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


def test_attached_and_detached_in_a_program_that_runs(tmp_path):
    import torch
    from torch import nn

    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        program.attach(tmp_path / folder, time.monotonic(), window=0, ceilings=False)
        for _ in range(5):
            model(torch.zeros(2, 4)).sum().backward()
            optimizer.step()
        program.detach()
        optimizer.step()
        assert len(only(program.collect(tmp_path / folder)).end) == 4


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


def test_one_profile_inside_another(tmp_path):
    folders = [tmp_path / name for name in ("outer", "inner")]
    for folder in folders:
        folder.mkdir()
        program.attach(folder, time.monotonic(), window=0, ceilings=False)
    from imagen_fast.profiling import journal

    for _ in folders:
        for _ in range(5):
            journal.current().step()
        program.detach()
    assert [len(only(program.collect(folder)).end) for folder in folders] == [4, 4]


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
