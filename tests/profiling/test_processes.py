"""What a tree of real processes used is counted whole: short-lived ones, ended ones, orphans."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from imagen_fast.profiling import processes
from imagen_fast.profiling.processes import Tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the counts of children are Linux's")

# The kernel counts in steps of a hundredth, for each process.
TICKS = 0.04
# Burns so many seconds of processor time.
BURN = "import time\nwhile time.process_time() < {}: pass\n"


@pytest.fixture(autouse=True)
def found_each_time(monkeypatch):
    monkeypatch.setattr(processes, "_SHARE_FOR_FINDING", 1e9)


@pytest.fixture
def start():
    """Start a Python program; it reads a line from its standard input before it ends."""
    begun = []

    def run(code):
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(child)
        return child

    yield run
    for child in begun:
        child.kill()
        child.communicate()


def used_by(child):
    """The system's own account of a process that has ended, with the children that it waited for."""
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    times = psutil.Process(child.pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def test_processes_that_come_and_go_between_two_looks_are_counted(start):
    child = start(f"""
        import subprocess, sys
        for _ in range(3):
            subprocess.run([sys.executable, "-S", "-c", {BURN.format(0.1)!r}])
        print(flush=True)
        input()
    """)
    tree = Tree(child.pid)
    tree.look()
    child.stdout.readline()
    look = tree.look()
    assert list(look.own) == [child.pid]
    assert look.cpu >= 0.3 - TICKS
    assert look.own[child.pid] < look.cpu - 0.25


def test_nothing_is_lost_or_counted_twice_when_a_child_that_was_seen_ends(start):
    child = start(f"""
        import subprocess, sys
        burn = {BURN.format(0.2)!r} + "print(flush=True)\\ninput()"
        worker = subprocess.Popen([sys.executable, "-S", "-c", burn], stdin=-1, stdout=-1)
        worker.stdout.readline()
        print(flush=True)
        input()
        worker.communicate(b"\\n")
        print(flush=True)
        input()
    """)
    tree = Tree(child.pid)
    child.stdout.readline()
    before = tree.look()
    assert len(before.own) == 2
    assert before.cpu >= 0.2 - TICKS
    child.stdin.write("\n")
    child.stdin.flush()
    child.stdout.readline()
    after = tree.look()
    assert list(after.own) == [child.pid]
    assert before.cpu <= after.cpu <= before.cpu + 0.15
    child.stdin.write("\n")
    child.stdin.flush()
    total = used_by(child)
    last = tree.look()
    assert last.cpu == pytest.approx(total, abs=TICKS)
    assert last.memory is None  # it has ended, and is not waited for
    child.wait()
    assert tree.look().cpu == pytest.approx(total, abs=TICKS)


def test_an_orphan_stays_and_what_it_used_is_kept_when_it_ends(start):
    child = start(f"""
        import subprocess, sys
        python = [sys.executable, "-S", "-c"]
        orphan = {BURN.format(0.2)!r} + "print(flush=True)\\ntime.sleep(60)"
        inner = "import subprocess, time\\n"
        inner += f"orphan = subprocess.Popen({{[*python, orphan]!r}})\\n"
        inner += "print(orphan.pid, flush=True)\\ntime.sleep(0.5)"
        subprocess.run([*python, inner])
        input()
    """)
    tree = Tree(child.pid)
    orphan = int(child.stdout.readline())
    assert orphan in tree.look().own
    child.stdout.readline()
    deadline = time.monotonic() + 10
    while psutil.Process(orphan).ppid() in tree.look().own and time.monotonic() < deadline:
        time.sleep(0.05)
    before = tree.look()
    assert orphan in before.own
    assert before.cpu >= 0.2 - TICKS
    os.kill(orphan, 9)
    while psutil.pid_exists(orphan) and time.monotonic() < deadline:
        time.sleep(0.05)
    after = tree.look()
    assert orphan not in after.own
    assert after.cpu >= before.cpu


def test_bytes_written_by_a_child_that_has_ended_are_counted(start, tmp_path):
    file = tmp_path / "file"
    write = (
        f"import os; f = open({str(file)!r}, 'wb'); f.write(bytes(2**20)); f.flush(); os.fsync(f.fileno())"
    )
    child = start(f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-S", "-c", {write!r}])
        print(flush=True)
        input()
    """)
    tree = Tree(child.pid)
    first = tree.look().written
    child.stdout.readline()
    written = tree.look().written - first
    if written == 0:
        pytest.skip("this file system's writes are not counted by process")
    assert 2**20 <= written < 2**21


def test_there_is_nothing_of_a_process_that_is_not_there():
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    look = Tree(gone.pid).look()
    assert look.own == {}
    assert look.cpu == 0
    assert look.memory is None
