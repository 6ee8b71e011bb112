"""What a container may use: its CPU quota and its memory, by Linux's control groups of either version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Group:
    """The folders of one control group; of version 1 each controller has its own."""

    version: int
    cpu: Path | None = None
    usage: Path | None = None
    memory: Path | None = None

    def quota_counts(self) -> tuple[float, float] | None:
        """Seconds for which processors were withheld by a quota, and seconds for which they were had."""
        counts = _numbers(self.cpu / "cpu.stat") if self.cpu is not None else {}
        if self.version == 2:
            if "throttled_usec" not in counts:
                return None  # the root, where there can be no quota
            return counts["throttled_usec"] / 1e6, counts["usage_usec"] / 1e6
        used = _number(self.usage / "cpuacct.usage") if self.usage is not None else None
        if "throttled_time" not in counts or used is None:
            return None
        return counts["throttled_time"] / 1e9, used / 1e9

    def memory_left(self) -> float | None:
        """Bytes until the limit, with what the kernel would drop from its cache; None without a limit."""
        if self.memory is None:
            return None
        names = ("memory.max", "memory.current", "inactive_file")
        if self.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (_number(self.memory / name) for name in names[:2])
        if limit is None or used is None:
            return None
        return limit - used + _numbers(self.memory / "memory.stat").get(names[2], 0.0)


def groups_of(pid: int, proc: Path = _PROC) -> list[Group]:
    """The control groups of a process: its own first, then those around it as far as they can be seen."""
    try:
        paths = dict(_controllers((proc / str(pid) / "cgroup").read_text()))
        mounts = dict(_mounts((proc / "self" / "mountinfo").read_text()))
    except (OSError, ValueError):
        return []
    # Both versions can be mounted, with the controllers in the first.
    if {"cpu", "memory"} & mounts.keys() & paths.keys():
        chains = {name: _chain(*mounts[name], paths[name]) for name in mounts.keys() & paths.keys()}
        counted = zip(chains.get("cpu", []), chains.get("cpuacct", []), strict=False)
        return [
            *(Group(1, cpu=cpu, usage=usage) for cpu, usage in counted),
            *(Group(1, memory=folder) for folder in chains.get("memory", [])),
        ]
    if "" in mounts and "" in paths:
        return [Group(2, folder, folder, folder) for folder in _chain(*mounts[""], paths[""])]
    return []


def _controllers(text: str) -> list[tuple[str, str]]:
    """By controller its group's path; version 2 has the name ''."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return [(name, path) for _, names, path in lines for name in names.split(",")]


def _mounts(text: str) -> list[tuple[str, tuple[str, Path]]]:
    """By controller the group that is mounted, and where."""
    found = []
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        root, folder = place.split()[3:5]
        words = kind.split()
        if words[0] == "cgroup2":
            found.append(("", (root, Path(folder))))
        elif words[0] == "cgroup":
            found += [(name, (root, Path(folder))) for name in words[-1].split(",")]
    return found


def _chain(root: str, folder: Path, path: str) -> list[Path]:
    """The group's folder and those above it, up to the mount.

    Inside a container the mount may begin at the container's own group, of which the path is told in full.
    """
    inside = path.removeprefix(root.rstrip("/")).strip("/")
    here = folder / inside if inside and ".." not in inside else folder
    if not here.is_dir():
        here = folder
    return [here, *(above for above in here.parents if above == folder or folder in above.parents)]


def _numbers(path: Path) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in map(str.split, path.read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def _number(path: Path) -> float | None:
    """None where there is no such file, or no limit (`max`, or of version 1 a number past any memory)."""
    try:
        value = float(path.read_text())
    except (OSError, ValueError):
        return None
    return value if value < 2**62 else None
