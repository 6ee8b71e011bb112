"""Contenders that a process of its own finds by name: their folder is on the path that it is given."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from imagen_fast.benchmarks.contender import Contender
from imagen_fast.benchmarks.correctness import Verdict


def good(log: Path, size: int = 2**20):
    """x, y and z; each call writes into `log` whose it is and in which process, and fills `size` bytes."""
    for name in "xyz":
        yield contender(name, log, partial(torch.full, (size,), 1, dtype=torch.uint8))


def litters(log: Path):
    """Its check frees 256 MiB in small pieces, below one that stays."""
    yield contender("x", log, partial(torch.ones, 1), at_once=litter)


def bad(log: Path):
    """x and y are good."""
    idle = partial(torch.ones, 1)
    yield contender("x", log, idle)
    yield contender("raises", log, idle, at_once=no_room)
    yield contender("dies", log, idle, at_once=die)
    yield contender("raises later", log, no_room)
    yield contender("dies later", log, die)
    yield contender("leaves later", log, partial(sys.exit, 3))
    yield contender("y", log, idle)


def late(parent: int, log: Path):
    """x, where it is asked for in the process `parent`; no other knows who takes part."""
    if os.getpid() != parent:
        no_room()
    yield contender("x", log, partial(torch.ones, 1))


def contender(name, log, work, at_once=lambda: None):
    def call():
        with log.open("a") as file:
            print(name, os.getpid(), file=file)
        work()

    def prepare():
        at_once()
        return call, Verdict(True, {"threads": torch.get_num_threads()})

    return Contender("a", name, prepare, {"images": 2}, build=lambda: call)


_KEPT = []


def litter():
    scraps = [b"x" * 2**16 for _ in range(2**12)]
    _KEPT.append(scraps[-1])


def no_room():
    raise MemoryError("no room\nat all")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
