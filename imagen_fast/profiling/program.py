"""Between the profiler and the program that it profiles: what is asked of the program, and what comes back.

The program's processes write a file each into a folder that both know. Nothing here imports PyTorch: in a
program that does not either, nothing is attached.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from imagen_fast.profiling.recording import Ceilings, Op, Steps, Window
from imagen_fast.profiling.task import Task

_VARIABLE = "IMAGEN_FAST_PROFILE"
_INJECT = Path(__file__).parent / "inject"
# Modules whose classes are watched, and the function of `hooks` that does it.
_WATCHED = {
    "torch": "watch_torch",
    "imagen_fast.data.loader": "watch_loader",
    "imagen_fast.train.optimizer": "watch_optimizer",
}
# Whether this process has its listeners, which stay where they are when nobody records.
_watching = False


@dataclass
class Collected:
    """What the processes of a program have written so far."""

    steps: list[Steps] = field(default_factory=list)
    window: Window | None = None
    ceilings: Ceilings | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def environment(folder: Path, start: float, *, window: int, ceilings: bool) -> dict[str, str]:
    """Variables with which a program, and every Python program that it starts, records itself."""
    task = {"folder": str(folder.resolve()), "start": start, "window": window, "ceilings": ceilings}
    path = [str(_INJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        _VARIABLE: json.dumps(task),
        "PYTHONPATH": os.pathsep.join(path),
        # PyTorch's profiler tells the terminal that it begins, and that there is no GPU.
        "KINETO_LOG_LEVEL": os.environ.get("KINETO_LOG_LEVEL", "99"),
    }


def begin() -> None:
    """In the program: watch what `environment` asked for, as soon as it is imported."""
    if _VARIABLE in os.environ:
        asked = json.loads(os.environ[_VARIABLE])
        attach(Path(asked["folder"]), asked["start"], window=asked["window"], ceilings=asked["ceilings"])


def attach(folder: Path, start: float, *, window: int, ceilings: bool) -> None:
    """Watch this process, from now on; what is imported later is watched when it is."""
    from imagen_fast.profiling import journal

    global _watching
    journal.open_for(Task(folder, start, window, ceilings))
    if not _watching:
        _watching = True
        _when_imported(_watch)


def detach() -> None:
    """Stop watching this process, and write what was recorded."""
    from imagen_fast.profiling import journal

    journal.close()


def step(images: int) -> None:
    """Where the program itself says that a step has ended."""
    from imagen_fast.profiling import journal

    notes = journal.current()
    if notes is not None:
        notes.step(images)


@contextmanager
def unwatched() -> Iterator[None]:
    """What happens meanwhile in this process is not the program's own, and not noted."""
    from imagen_fast.profiling import journal

    with journal.closed():
        yield


def _watch(name: str) -> None:
    from imagen_fast.profiling import hooks

    getattr(hooks, _WATCHED[name])(sys.modules[name])


def _when_imported(then: Callable[[str], None]) -> None:
    """Call `then` with the name of each watched module when it has been imported; at once if it is."""
    late = [name for name in _WATCHED if name not in sys.modules]
    if late:
        sys.meta_path.insert(0, _Finder(late, then))
    for name in _WATCHED.keys() - set(late):
        then(name)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the others find, for some names, and is told when it has been carried out."""

    def __init__(self, names: Sequence[str], then: Callable[[str], None]) -> None:
        self._names, self._then = set(names), then
        self._own = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._names or getattr(self._own, "asking", False):
            return None
        self._own.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._own.asking = False
        if spec is not None and spec.loader is not None:
            self._tell_after(spec.loader, name)
        return spec

    def _tell_after(self, loader: Any, name: str) -> None:
        carry_out = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            carry_out(module)
            self._names.discard(name)
            from imagen_fast.profiling import journal

            journal.guarded(self._then, name)

        loader.exec_module = exec_module


def collect(folder: Path) -> Collected:
    """What has been written so far; while the program runs, too."""
    found = Collected()
    parts = [json.loads(path.read_text()) for path in folder.glob("process-*.json")]
    for part in sorted(parts, key=_chief_first):
        steps = Steps(**part["steps"])
        if steps.end:
            found.steps.append(steps)
        if part["window"] is not None and found.window is None:
            found.window = Window(**part["window"] | {"ops": [Op(**op) for op in part["window"]["ops"]]})
        if part["ceilings"] is not None and found.ceilings is None:
            found.ceilings = Ceilings(**part["ceilings"])
        found.machine |= part["machine"]
        found.absent |= {name: why for name, why in part["absent"].items() if name not in found.absent}
    if not found.steps:
        found.absent.setdefault(
            "steps", "no process of the program was seen to take batches or update weights with PyTorch"
        )
    found.absent = {
        n: why for n, why in found.absent.items() if getattr(found, n, None) is None or n == "steps"
    }
    return found


def _chief_first(part: dict[str, Any]) -> tuple[bool, int, float]:
    """Who trains before who only loads; the first rank; who did it longest."""
    steps = part["steps"]
    return steps["boundary"] != "optimizer", steps["rank"], -sum(steps["seconds"]) * steps["every"]
