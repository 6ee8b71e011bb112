"""The thread that samples: in time, for next to nothing, for as long as it takes."""

from __future__ import annotations

import os
import threading
import time

import pytest
from fake_nvml import Fake, h100

from imagen_fast.profiling import sampler as module
from imagen_fast.profiling.nvml import Gpus
from imagen_fast.profiling.quantities import GPU, HOST
from imagen_fast.profiling.sampler import Sampler


@pytest.fixture
def sampling():
    begun = []

    def start(interval=0.05, **given):
        given.setdefault("gpus", Gpus({}, Fake()))
        one = Sampler(os.getpid(), time.monotonic(), interval, **given)
        begun.append(one)
        one.begin()
        return one

    yield start
    assert not any(thread.name == "imagen-fast-profile" for thread in threading.enumerate())


def test_samples_of_host_and_gpus_are_of_one_length(sampling):
    nvml = Fake(h100(), h100(uuid="GPU-other"))
    one = sampling(0.15, gpus=Gpus({}, nvml))
    time.sleep(0.7)
    while_it_runs = one.samples()
    one.end()
    samples = one.samples()
    assert 3 <= len(while_it_runs.time) <= len(samples.time)
    assert samples.interval == 0.15
    assert samples.host.keys() | samples.absent.keys() - {"gpus"} == HOST.keys()
    assert [gpu.index for gpu in samples.gpus] == [0, 1]
    for gpu in samples.gpus:
        assert gpu.series.keys() == GPU.keys()
        # The last sample may follow too soon on the one before to be a reading of its own.
        assert {value for value in gpu.series["sm_active"][1:-1] if value is not None} == {0.88}
    for series in (samples.host, *(gpu.series for gpu in samples.gpus)):
        assert {len(values) for values in series.values()} == {len(samples.time)}
    assert nvml.open == 0


def test_a_run_shorter_than_an_interval_has_a_sample(sampling):
    one = sampling(60)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    one.end()
    samples = one.samples()
    assert len(samples.time) == 1
    assert samples.host["cpu"][0] * samples.time[0] >= 0.08


def test_samples_do_not_drift_and_none_is_made_up_for():
    assert module.after(10.0, 0.5, 10.03) == 10.5
    assert module.after(10.5, 0.5, 10.53) == 11.0
    assert module.after(10.0, 0.5, 12.2) == 12.5


def test_where_a_sample_is_dear_they_are_taken_more_seldom_and_it_is_said(sampling, monkeypatch):
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    monkeypatch.setattr(module, "_WARM", 2)
    one = sampling(None)
    read = one._read

    def dear():
        until = time.thread_time() + 0.004
        while time.thread_time() < until:
            pass
        return read()

    monkeypatch.setattr(one, "_read", dear)
    time.sleep(1.2)
    one.end()
    samples = one.samples()
    assert samples.interval >= 0.32
    assert "ms of a processor" in samples.absent["interval"]
    # What was asked for is kept to.
    fixed = sampling(0.02)
    monkeypatch.setattr(fixed, "_read", dear)
    time.sleep(0.3)
    fixed.end()
    assert fixed.samples().interval == 0.02


def test_at_the_default_interval_it_takes_less_than_a_hundredth_of_a_core(sampling, monkeypatch):
    """Of the thread's own processor time, which a busy machine does not change much."""
    monkeypatch.setattr(module, "INTERVAL", 0.5)
    one = sampling(None)
    # Twenty samples without the waiting between them; each comes after others' work, as between steps.
    other = bytearray(8 * 2**20)
    costs = []
    for _ in range(20):
        other[::64] = bytes(len(other[::64]))
        before = time.thread_time()
        one._sample()
        costs.append(time.thread_time() - before)
    one.end()
    assert sum(costs) / len(costs) < 0.01 * 0.5


def test_who_trains_is_asked_at_each_sample(sampling):
    known = []
    one = sampling(0.05, training=lambda: known)
    time.sleep(0.2)
    known.append(os.getpid())
    time.sleep(0.3)
    one.end()
    main = one.samples().host["main_cpu"]
    assert main[0] is None
    assert main[-1] is not None


def test_without_who_trains_there_is_a_reason(sampling):
    one = sampling()
    time.sleep(0.15)
    one.end()
    assert one.samples().absent["main_cpu"] == "no process of the program said that it trains"
