"""What a program notes of itself while it is profiled, and that it runs as it does by itself."""

import time

import pytest
from programs import only

from imagen_fast.profiling import program


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
        with Loader(open_source("./photos"), 4, 4, threads=1) as loader:
            for _, batch in zip(range(12), loader.batches()):
                model(batch.images.float()).sum().backward()
                ours.step(0.1)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    steps = only(found)
    assert (steps.boundary, set(steps.images), steps.workers) == ("optimizer", {4}, 1)
    assert len(steps.end) == 11


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
