"""A program's processes: the first and all that descend from it, counted so that none is lost."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from imagen_fast.profiling.delay import delay
from imagen_fast.profiling.seldom import Seldom

# Finding new processes reads about every process of the machine.
_SHARE_FOR_FINDING = 0.0015
# Linux adds what a process used to what its parent has used when the parent takes note of its end.
_PARENTS_INHERIT = sys.platform == "linux"


@dataclass
class _Member:
    """Args:
    own: processor seconds of its own.
    total: with those of the ended children that it has waited for.
    delayed: seconds in which its first thread could have run, but had no processor.
    stored: bytes read from and written to storage.
    """

    process: psutil.Process
    parent: int = 0
    own: float = 0.0
    total: float = 0.0
    delayed: float = 0.0
    stored: tuple[int, int] = (0, 0)
    memory: int = 0
    status: str = ""


@dataclass
class Look:
    """The processes at one moment.

    Args:
        own: processor seconds by process, of those that are there.
        delayed: seconds in which its first thread had to wait for a processor, likewise.
        cpu: processor seconds of all since their start, ended ones included; it never falls.
        read, written: bytes, likewise.
        memory: resident bytes, pages that processes share in each of them; None where all have ended.
        in_storage: the share of the processes that wait for storage and cannot be interrupted.
    """

    own: dict[int, float] = field(default_factory=dict)
    delayed: dict[int, float] = field(default_factory=dict)
    cpu: float = 0.0
    read: float = 0.0
    written: float = 0.0
    memory: float | None = None
    in_storage: float = 0.0


class Tree:
    """The process `root` and its descendants; also those whose parent has ended since they were seen."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._members: dict[int, _Member] = {}
        self._find = Seldom(self._found, _SHARE_FOR_FINDING)
        # Of processes that ended where no other member inherits what they used.
        self._ended_cpu = 0.0
        self._ended_stored = [0.0, 0.0]
        self._last = Look()
        self.stores = hasattr(psutil.Process, "io_counters")

    def look(self) -> Look:
        self._find()
        ended = [pid for pid, member in self._members.items() if not self._update(member)]
        for pid in ended:
            self._forget(pid)
        members = self._members.values()
        living = [member for member in members if member.status != psutil.STATUS_ZOMBIE]
        waiting = [member.status == psutil.STATUS_DISK_SLEEP for member in living]
        stored = [sum(m.stored[way] for m in members) + self._ended_stored[way] for way in (0, 1)]
        self._last = Look(
            own={pid: member.own for pid, member in self._members.items()},
            delayed={pid: member.delayed for pid, member in self._members.items()},
            # What a process used and nobody inherited unseen would make the sum fall.
            cpu=max(self._last.cpu, sum(m.total for m in members) + self._ended_cpu),
            read=max(self._last.read, stored[0]),
            written=max(self._last.written, stored[1]),
            memory=float(sum(m.memory for m in living)) if living else None,
            in_storage=sum(waiting) / len(waiting) if waiting else 0.0,
        )
        return self._last

    def _found(self) -> None:
        """Take in who is new: below the root, and below members that have lost their parent."""
        tops = [self._root, *(pid for pid, m in self._members.items() if m.parent not in self._members)]
        for top in dict.fromkeys(tops):
            try:
                process = psutil.Process(top)
                for each in (process, *process.children(recursive=True)):
                    known = self._members.get(each.pid)
                    if known is not None and known.process != each:
                        self._forget(each.pid)  # the number went to another process
                        known = None
                    if known is None:
                        self._members[each.pid] = _Member(each)
            except psutil.Error:
                continue

    def _update(self, member: _Member) -> bool:
        """Whether the process is still there."""
        try:
            with member.process.oneshot():
                times = member.process.cpu_times()
                member.parent = member.process.ppid()
                member.status = member.process.status()
                member.own = times.user + times.system
                # Other systems have no such fields.
                member.total = member.own + getattr(times, "children_user", 0.0)
                member.total += getattr(times, "children_system", 0.0)
                member.delayed = delay(Path(f"/proc/{member.process.pid}/schedstat")) or member.delayed
                # One that has ended and is not waited for yet has counts, but no memory.
                member.memory = 0
                member.memory = member.process.memory_info().rss
                if self.stores:
                    counts = member.process.io_counters()
                    member.stored = (counts.read_bytes, counts.write_bytes)
        except psutil.NoSuchProcess as gone:
            return isinstance(gone, psutil.ZombieProcess)
        except psutil.AccessDenied:
            pass  # another user's process: what could be read has been
        return True

    def _forget(self, pid: int) -> None:
        member = self._members.pop(pid)
        if not (_PARENTS_INHERIT and member.parent in self._members):
            self._ended_cpu += member.total
            self._ended_stored = [a + b for a, b in zip(self._ended_stored, member.stored, strict=True)]
