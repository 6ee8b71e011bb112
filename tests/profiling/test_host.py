"""The host's quantities: rates of counters, quotas, what a system does not tell."""

from __future__ import annotations

import mmap
import os
import sys
import time

import pytest

from imagen_fast.profiling import cgroup, host
from imagen_fast.profiling.host import Host
from imagen_fast.profiling.quantities import HOST


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_every_quantity_is_told_or_has_a_reason():
    here = Host(os.getpid())
    assert here.read() == {}  # where rates begin
    values = here.read()
    assert values.keys() | here.absent.keys() == HOST.keys()
    assert not values.keys() & here.absent.keys()
    assert here.pids >= {os.getpid()}


def test_processors_are_counted_in_cores_and_divided_when_it_is_known_who_trains():
    training = set()
    here = Host(os.getpid(), lambda: training)
    here.read()
    begun = time.monotonic()
    burn(0.3)
    values = here.read()
    cores = 0.3 / (time.monotonic() - begun)
    assert values["cpu"] == pytest.approx(cores, rel=0.3)
    assert values["machine_cpu"] > 0
    assert values["main_cpu"] is None
    assert values["workers_cpu"] is None
    training.add(os.getpid())
    burn(0.1)
    values = here.read()
    assert values["main_cpu"] + values["workers_cpu"] == pytest.approx(values["cpu"])
    assert values["main_cpu"] > 0.8 * values["cpu"]


def test_memory_counts_what_the_program_holds():
    here = Host(os.getpid())
    here.read()
    before = here.read()["memory"]
    # Not of the heap, which may hold what earlier tests have let go of.
    with mmap.mmap(-1, 64 * 2**20) as held:
        held.write(b"x" * len(held))
        assert here.read()["memory"] - before > 60 * 2**20


def test_a_counter_that_begins_anew_gives_no_rate():
    assert host._rate(5.0, 3.0, 1.0) is None
    assert host._rate(None, 3.0, 1.0) is None
    assert host._rate(3.0, 5.0, 0.5) == 4.0


def test_where_linux_files_do_not_exist_they_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "_PRESSURE", tmp_path)
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    monkeypatch.setattr(host.cgroup, "groups_of", lambda pid: [])
    monkeypatch.setattr(host.psutil, "cpu_freq", lambda: None)
    monkeypatch.setattr(host.psutil, "net_io_counters", lambda pernic: {"lo": None})
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(host.psutil.Process, "io_counters")
    here = Host(os.getpid())
    here.read()
    values = here.read()
    lacking = {"cpu_pressure", "io_pressure", "memory_pressure", "throttled", "read", "written", "in_storage"}
    assert here.absent.keys() == lacking | {"workers_delayed", "clock", "received", "sent"}
    assert here.absent["cpu_pressure"] == "only Linux counts it"
    assert values.keys() == HOST.keys() - here.absent.keys()
    assert all(why and not why.endswith(".") for why in here.absent.values())


def test_the_share_stopped_by_a_quota(monkeypatch):
    counts = iter([(10.0, 100.0), (11.0, 101.0), (11.0, 101.0), (13.0, 102.0)])

    class Quota:
        def quota_counts(self):
            return next(counts)

        def memory_left(self):
            return 12345.0

    monkeypatch.setattr(host.cgroup, "groups_of", lambda pid: [Quota()])
    here = Host(os.getpid())  # asks once whether it is told
    here.read()
    assert here.read()["throttled"] == 0
    values = here.read()
    assert values["throttled"] == pytest.approx(2 / 3)
    assert values["memory_available"] == 12345


# Control groups.


@pytest.fixture
def machine(tmp_path):
    """Write files of a machine; gives a function that finds the groups of process 7 on it."""
    proc = tmp_path / "proc"

    def made(groups, mounts, files):
        for folder, text in (("7", groups), ("self", None)):
            (proc / folder).mkdir(parents=True)
            if text is not None:
                (proc / folder / "cgroup").write_text(text)
        (proc / "self" / "mountinfo").write_text(mounts.format(tmp_path))
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cgroup.groups_of(7, proc)

    return made


V2 = "30 23 0:26 / {}/sys rw - cgroup2 cgroup2 rw\n"


def test_version_2_with_a_quota_on_the_pod_around_it(machine):
    stat = "usage_usec {}\nuser_usec 0\nthrottled_usec {}\n"
    groups = machine(
        "0::/pod/container\n",
        V2,
        {
            "cpu.stat": "usage_usec 99\n",
            "pod/cpu.stat": stat.format(8_000_000, 4_000_000),
            "pod/memory.max": "1000\n",
            "pod/memory.current": "900\n",
            "pod/memory.stat": "anon 500\ninactive_file 300\n",
            "pod/container/cpu.stat": stat.format(8_000_000, 0),
            "pod/container/memory.max": "max\n",
            "pod/container/memory.current": "900\n",
        },
    )
    assert [group.quota_counts() for group in groups] == [(0, 8), (4, 8), None]
    assert [group.memory_left() for group in groups] == [None, 400, None]


def test_version_2_seen_from_inside_a_container(machine):
    groups = machine(
        "0::/docker/abc\n",
        "30 23 0:26 /docker/abc {}/sys rw - cgroup2 cgroup2 rw\n",
        {"cpu.stat": "usage_usec 3000000\nthrottled_usec 1000000\n"},
    )
    assert [group.quota_counts() for group in groups] == [(1, 3)]


def test_version_1_has_a_folder_for_each_controller(machine):
    groups = machine(
        "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n",
        "30 23 0:26 / {0}/sys/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 23 0:27 / {0}/sys/memory rw - cgroup cgroup rw,memory\n"
        "32 23 0:28 / {0}/sys/unified rw - cgroup2 cgroup2 rw\n",
        {
            "cpu/job/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 2000000000\n",
            "cpu/job/cpuacct.usage": "6000000000\n",
            "cpu/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
            "cpu/cpuacct.usage": "9000000000\n",
            "memory/job/memory.limit_in_bytes": "1000\n",
            "memory/job/memory.usage_in_bytes": "700\n",
            "memory/job/memory.stat": "total_inactive_file 100\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "700\n",
        },
    )
    assert [c for group in groups if (c := group.quota_counts())] == [(2, 6), (0, 9)]
    assert [left for group in groups if (left := group.memory_left()) is not None] == [400]


def test_without_control_groups_there_are_none(machine, tmp_path):
    assert cgroup.groups_of(7, tmp_path) == []
