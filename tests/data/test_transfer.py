"""Batches on their way to a GPU: what is asked of it in which order; and that they arrive whole."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from imagen_fast.data import Augmentation, Batch, Loader, open_source
from imagen_fast.data.batch import Sent, Transfer
from imagen_fast.data.under_way import UnderWay
from imagen_fast.errors import InvalidInput

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def asked(monkeypatch):
    """What is asked of CUDA, in order, with a device that is none: its memory is the host's."""
    log, inside = [], threading.local()

    class Stream:
        def __init__(self, device=None, name="side"):
            self.name = name

        def record_event(self):
            log.append(("record", self.name))
            return "event"

        def wait_event(self, event):
            log.append(("wait", self.name, event))

    @contextmanager
    def stream(chosen):
        inside.stream = chosen
        yield
        inside.stream = None

    def to(part, device, non_blocking=False):
        log.append(("copy", getattr(inside.stream, "name", None), non_blocking, id(part) in pinned))
        return part.clone()

    def pin(part):
        made = part.clone()
        pinned[id(made)] = made
        return made

    pinned = {}
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(name="caller's"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda part: id(part) in pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda part, on: log.append(("used by", on.name)))
    return log


@pytest.mark.parametrize("labelled", [True, False])
def test_copies_are_made_aside_and_waited_for_by_the_caller(asked, labelled):
    labels = torch.arange(2) if labelled else None
    batch = Batch(torch.ones(2, 3, 4, 4).pin_memory(), labels, torch.arange(2))
    count = 3 if labelled else 2
    sent = Transfer(torch.device("cpu")).send(batch)
    assert asked == [("copy", "side", True, True)] * count + [("record", "side")]
    del asked[:]
    received = sent.receive()
    assert asked == [("wait", "caller's", "event")] + [("used by", "caller's")] * count
    assert torch.equal(received.images, batch.images)
    assert (received.labels is None) == (labels is None)


def test_nothing_is_asked_for_the_cpu(asked):
    batch = Batch(torch.ones(1), None, torch.arange(1))
    assert Sent(batch).receive() is batch
    assert asked == []


class Here:
    """A pool that does things at once, or when told."""

    def __init__(self):
        self.tasks = []

    def submit(self, task, *arguments):
        self.tasks.append(lambda: task(*arguments))
        return Future()


def test_the_last_part_to_end_makes_the_result():
    pool, done = Here(), []
    work = UnderWay(pool, [lambda n=n: done.append(n) for n in range(3)], lambda: list(done))
    for number in (2, 0):
        pool.tasks[number]()
        assert not work._made.done()
    pool.tasks[1]()
    assert work.result() == [2, 0, 1]


def test_what_a_closed_pool_had_under_way_is_lost_and_says_so():
    with ThreadPoolExecutor(1) as pool:
        busy = threading.Event()
        pool.submit(busy.wait, 10)
        work = UnderWay(pool, [lambda: None], lambda: 1)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(InvalidInput, match="the loader was closed"):
            work.result()
        busy.set()


def test_the_first_failure_is_the_result():
    def fail(number):
        raise ValueError(f"part {number}")

    pool = Here()
    work = UnderWay(pool, [lambda n=n: fail(n) for n in range(2)] + [lambda: None], lambda: 1)
    for number in (1, 0, 2):
        pool.tasks[number]()
    with pytest.raises(ValueError, match="part 1"):
        work.result()


class TestOnGPU:
    pytestmark = gpu

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
    @pytest.mark.parametrize("kind", ["folder", "digits"])
    def test_batches_are_those_of_the_cpu(self, folder, kind, dtype):
        source = open_source(folder if kind == "folder" else "digits")
        options = {"seed": 1, "dtype": dtype, "threads": 4}
        with (
            Loader(source, 16, 8, **options) as plain,
            Loader(source, 16, 8, device="cuda", **options) as moved,
        ):
            pairs = [*zip(plain, moved, strict=True), *zip(plain.once(), moved.once(), strict=True)]
            for a, b in [*pairs, (plain.at(40), moved.at(40))]:
                assert b.images.device == torch.device("cuda", torch.cuda.current_device())
                assert b.labels.is_cuda
                assert b.indices.is_cuda
                assert torch.equal(a.images, b.images.cpu())
                assert torch.equal(a.labels, b.labels.cpu())
                assert torch.equal(a.indices, b.indices.cpu())

    def test_a_busy_caller_sees_every_byte(self):
        """The caller's stream lags far behind: neither buffers nor memory on the device may be taken again
        before it has read them."""
        source = open_source("photos", tile=64)
        with (
            Loader(source, 64, 64, Augmentation(), threads=4) as plain,
            Loader(source, 64, 64, Augmentation(), threads=4, device="cuda") as moved,
        ):
            sums = []
            for _, batch in zip(range(60), moved.batches(), strict=False):
                torch.cuda._sleep(20_000_000)  # about 10 ms
                sums.append(batch.images.long().sum())
                del batch
            found = torch.stack(sums).tolist()
            assert found == [int(plain.at(step).images.long().sum()) for step in range(60)]

    def test_another_stream_may_be_the_callers(self):
        with (
            Loader(open_source("digits"), 64, 8) as plain,
            Loader(open_source("digits"), 64, 8, device="cuda") as moved,
        ):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                found = [batch.images.long().sum() for _, batch in zip(range(20), moved, strict=False)]
            stream.synchronize()
            assert [int(x) for x in found] == [int(plain.at(s).images.long().sum()) for s in range(20)]
