"""Batches that are drawn ahead to measure the ceilings: the program sees the same ones, in the same order."""


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
