"""The machine while a program runs: its processors, memory, storage and network."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from imagen_fast.profiling import cgroup
from imagen_fast.profiling.processes import Look, Tree
from imagen_fast.profiling.seldom import Seldom

_PRESSURE = Path("/proc/pressure")
_PRESSURES = {f"{kind}_pressure": kind for kind in ("cpu", "io", "memory")}
# Some machines take milliseconds to tell a processor's clock.
_SHARE_FOR_CLOCK = 0.0005
# What passes through them passes through another interface as well, or never leaves the machine.
_WITHIN = re.compile(r"lo\d*$|loopback|veth|docker|br-|virbr|cni|flannel|cali", re.IGNORECASE)

Values = dict[str, float | None]


class Host:
    """The host's quantities of `quantities.HOST`, for the process `root` and all that descend from it.

    Args:
        training: the processes that are known to train; asked at each reading.

    Attributes:
        absent: quantities that cannot be read here, and why.
        pids: the program's processes at the last reading.
    """

    def __init__(self, root: int, training: Callable[[], Iterable[int]] = tuple) -> None:
        self._tree = Tree(root)
        self._training = training
        self._groups = cgroup.groups_of(root)
        self._clock = Seldom(_processor_clock, _SHARE_FOR_CLOCK)
        self._before: tuple[float, Look, Values] | None = None
        self.pids: set[int] = set()
        self.absent: dict[str, str] = {}
        self._name_absent()

    def read(self) -> Values:
        """Values now; rates since the reading before. The first gives nothing: it is where rates begin."""
        now = time.monotonic()
        look = self._tree.look()
        self.pids = set(look.own)
        counts = self._counts(look)
        before, self._before = self._before, (now, look, counts)
        if before is None:
            return {}
        then, earlier, counts_then = before
        seconds = max(now - then, 1e-9)
        values: Values = {
            name: _rate(counts_then.get(name), count, seconds) for name, count in counts.items()
        }
        for name in _PRESSURES:
            # The kernel's clock and ours are read one after the other.
            if (pressure := values.get(name)) is not None:
                values[name] = min(pressure, 1.0)
        stopped, had = values.pop("stopped", None), values.pop("had", None)
        if stopped is not None and had is not None:
            # The kernel adds up what every processor was withheld.
            values["throttled"] = stopped / (stopped + had) if stopped + had > 0 else 0.0
        values |= self._divided(values["cpu"] or 0.0, earlier, look, seconds)
        values |= {
            "memory": look.memory,
            "memory_available": self._memory_left(),
            "in_storage": look.in_storage,
            "clock": self._clock(),
        }
        return {name: value for name, value in values.items() if name not in self.absent}

    def _counts(self, look: Look) -> Values:
        """Everything that only grows, in the units of `quantities` times seconds."""
        stopped, had = self._quota()
        received, sent = _network()
        return {
            "cpu": look.cpu,
            "machine_cpu": _machine_seconds(),
            "read": look.read,
            "written": look.written,
            "received": received,
            "sent": sent,
            "stopped": stopped,
            "had": had,
            **{name: _pressure(kind) for name, kind in _PRESSURES.items()},
        }

    def _divided(self, cpu: float, earlier: Look, look: Look, seconds: float) -> Values:
        """The program's processors by what they worked for; not known until a process says that it trains."""
        training = set(self._training())
        if not training:
            return {"main_cpu": None, "workers_cpu": None, "workers_delayed": None}
        used = sum(own - earlier.own.get(pid, 0.0) for pid, own in look.own.items() if pid in training)
        main = min(max(used, 0.0) / seconds, cpu)
        delayed = sum(
            now - earlier.delayed.get(pid, now) for pid, now in look.delayed.items() if pid not in training
        )
        return {"main_cpu": main, "workers_cpu": cpu - main, "workers_delayed": delayed / seconds}

    def _quota(self) -> tuple[float | None, float | None]:
        """Of the group that was stopped longest; its own quota and those around it all stop a process."""
        counts = [each for group in self._groups if (each := group.quota_counts()) is not None]
        return max(counts, default=(None, None), key=lambda each: each[0])

    def _memory_left(self) -> float:
        limits = [left for group in self._groups if (left := group.memory_left()) is not None]
        return float(min([psutil.virtual_memory().available, *limits]))

    def _name_absent(self) -> None:
        for name, kind in _PRESSURES.items():
            if _pressure(kind) is None:
                self.absent[name] = (
                    "this kernel does not count it (/proc/pressure)"
                    if sys.platform == "linux"
                    else "only Linux counts it"
                )
        if self._quota()[0] is None:
            self.absent["throttled"] = "the program is in no control group that can have a quota"
        if not self._tree.stores:
            self.absent["read"] = self.absent["written"] = f"{platform.system()} does not count it by process"
        if sys.platform != "linux":
            self.absent["in_storage"] = self.absent["workers_delayed"] = "only Linux tells it of a process"
        if _network()[0] is None:
            self.absent["received"] = self.absent["sent"] = "there is no network interface to the outside"
        if self._clock() is None:
            self.absent["clock"] = "the system does not tell it"


def facts() -> dict[str, Any]:
    """Of the machine, without PyTorch."""
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def _rate(before: float | None, now: float | None, seconds: float) -> float | None:
    """None where there is none, or where the counter began anew."""
    if before is None or now is None or now < before:
        return None
    return (now - before) / seconds


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    # Time of guests is in `user` already; what a hypervisor took was no work.
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def _network() -> tuple[float | None, float | None]:
    try:
        by_name = psutil.net_io_counters(pernic=True)
    except (OSError, RuntimeError):
        return None, None
    outside = [counts for name, counts in by_name.items() if not _WITHIN.match(name)]
    if not outside:
        return None, None
    return float(sum(c.bytes_recv for c in outside)), float(sum(c.bytes_sent for c in outside))


def _pressure(kind: str) -> float | None:
    """Seconds in which something waited."""
    try:
        some = (_PRESSURE / kind).read_text().split("\n", 1)[0]
        return int(some.rsplit("total=", 1)[1]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def _processor_clock() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (AttributeError, OSError, NotImplementedError, RuntimeError):
        return None
    return clock.current * 1e6 if clock is not None and clock.current else None


def processor_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
