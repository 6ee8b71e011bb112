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

from imagen_fast.benchmarks import record, roofline
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
        suites: of each contest, the suite.
        machine: described and measured before the first contest is held.
        absent: from those that were held.
    """

    device: torch.device
    quick: bool
    suites: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, Contest] = field(default_factory=dict)
    held: dict[str, list[Result]] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    absent: list[Absence] = field(default_factory=list)

    def parameters(self, suite: str) -> Iterator[Any]:
        """The contests of a suite with the numbers of their contenders, and the absent peers."""
        for contest in SUITES[suite].contests(self.device, self.quick):
            self.waiting[contest.name] = contest
            self.suites[contest.name] = suite
            together = pytest.mark.benchmark(group=contest.name, timer=CLOCK.read)
            for number, contender in enumerate(contest.contenders()):
                name = f"{contender.case} | {contender.implementation}"
                yield pytest.param(contest.name, number, id=name, marks=together)
            for absence in contest.absent:
                skip = pytest.mark.skip(reason=_told(absence))
                yield pytest.param("", 0, id=f"{contest.name} | {absence.peer}", marks=skip)

    def result(self, contest: str, number: int) -> Result:
        """Raises what the contest raised, in every test of it."""
        if contest in self.waiting:
            self._hold(self.waiting.pop(contest))
        if contest in self.failed:
            raise self.failed[contest]
        return self.held[contest][number]

    def _hold(self, contest: Contest) -> None:
        if not self.machine:
            self.machine = describe(self.device) | {"roofline": roofline.measure(self.device)}
        try:
            self.held[contest.name] = hold(contest, self.device)
            self.absent += contest.absent
        except Exception as error:
            self.failed[contest.name] = error

    def record(self) -> record.Record:
        """Of the suites that any contest was held of."""
        suites = dict.fromkeys(self.suites[name] for name in self.held)
        contests = list(self.held.values())
        return record.make_record(", ".join(suites), self.quick, self.machine, contests, self.absent)


def _told(absence: Absence) -> str:
    return f"{absence.peer}: {absence.why}; {absence.install}"


SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("imagen_fast")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure")
    group.addoption(
        "--full", action="store_true", help="every case, which takes an hour; else the chief ones"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("contests are timed in one process, one after another: leave out -n")
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
        if result.absence is not None:
            pytest.skip(_told(result.absence))
        benchmark.extra_info |= {"case": result.case, "implementation": result.implementation}
        assert result.timing is not None, result.verdict.evidence
        seconds = iter([sample.seconds for sample in result.timing.samples])
        benchmark.pedantic(lambda: CLOCK.advance(next(seconds)), rounds=len(result.timing.samples))

    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["imagen_fast"] = config.stash[SESSION].record()
