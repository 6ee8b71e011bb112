"""The contests for pytest-benchmark: `python -P -m pytest benchmarks/ --benchmark-json FILE`.

They are those of `imagen-fast bench`, held in the same way: all are checked, and the correct ones timed in
turn. pytest-benchmark does not time them again: its clock goes by the seconds that the contest has measured.
Its JSON holds our record too, for `imagen-fast bench report`. Whoever is not correct is a test that fails;
an absent peer is one that is skipped, and says what brings it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from imagen_fast.benchmarks import record
from imagen_fast.benchmarks.contest import Contest, Result, hold
from imagen_fast.benchmarks.machine import describe
from imagen_fast.benchmarks.peers import Absence
from imagen_fast.benchmarks.suites import SUITES


class Clock:
    """What pytest-benchmark reads the time from."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


@dataclass
class Session:
    """What a run has collected and measured.

    Args:
        waiting: contests by name; one is let go of, with its tensors, when it has been held.
    """

    device: torch.device
    quick: bool
    suites: list[str] = field(default_factory=list)
    waiting: dict[str, Contest] = field(default_factory=dict)
    held: dict[str, list[Result]] = field(default_factory=dict)
    absent: list[Absence] = field(default_factory=list)

    def parameters(self, suite: str) -> Iterator[Any]:
        """The contests of a suite with the numbers of their contenders, and the absent peers."""
        self.suites.append(suite)
        for contest in SUITES[suite].contests(self.device, self.quick):
            self.waiting[contest.name] = contest
            self.absent += contest.absent
            together = pytest.mark.benchmark(group=contest.name, timer=CLOCK.read)
            for number, contender in enumerate(contest.contenders()):
                name = f"{contender.case} | {contender.implementation}"
                yield pytest.param(contest.name, number, id=name, marks=together)
            for absence in contest.absent:
                skip = pytest.mark.skip(reason=f"{absence.peer}: {absence.why}; {absence.install}")
                yield pytest.param("", 0, id=f"{contest.name} | {absence.peer}", marks=skip)

    def result(self, contest: str, number: int) -> Result:
        if contest not in self.held:
            self.held[contest] = hold(self.waiting.pop(contest), self.device)
        return self.held[contest][number]


SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("imagen_fast")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure")
    group.addoption(
        "--full", action="store_true", help="every case, which takes an hour; else the chief ones"
    )


def pytest_configure(config: pytest.Config) -> None:
    device = torch.device(config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("device cuda was asked for, but PyTorch finds none here; cpu is possible")
    config.stash[SESSION] = Session(device, quick=not config.getoption("--full"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[SESSION]
    metafunc.parametrize(("contest", "number"), list(session.parameters(metafunc.module.SUITE)))


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[None]:
    """A suite that takes one thread for everyone leaves the next suite all of them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(benchmark: Any, contest: str, number: int, request: pytest.FixtureRequest) -> Any:
    """Call it: the contest is held, if it is not yet, and this contender's times go to pytest-benchmark."""

    def report() -> None:
        result = request.config.stash[SESSION].result(contest, number)
        benchmark.extra_info |= {"case": result.case, "implementation": result.implementation}
        assert result.timing is not None, result.verdict.evidence
        seconds = iter([sample.seconds for sample in result.timing.samples])
        benchmark.pedantic(lambda: CLOCK.advance(next(seconds)), rounds=len(result.timing.samples))

    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    session = config.stash[SESSION]
    output_json["imagen_fast"] = record.make_record(
        ", ".join(session.suites),
        session.quick,
        describe(session.device),
        list(session.held.values()),
        session.absent,
    )
