"""Contenders that are measured together: built, checked, and the correct ones timed round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Effort, Timing, interleave
from imagen_fast.benchmarks.peers import Absence

OURS = "imagen_fast"


@dataclass(frozen=True)
class Contender:
    """One implementation of a case.

    Args:
        case: operation, use, sizes, hidden share, type and pass, as in `mae small same-objective bf16 step`.
        implementation: `OURS`, or the peer and its mode.
        prepare: builds what is timed and checks it; nothing is built before.
        facts: workload and settings, for the record.
    """

    case: str
    implementation: str
    prepare: Callable[[], tuple[Call, Verdict]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contest:
    """Contenders of one kind of work; each of ours is compared with every peer.

    Args:
        measured: the pass: `forward`, `backward`, `step`, ...
        contenders: called once a run, so that what the checks share is gone before anything is timed.
        cold: see `interleave`.
    """

    name: str
    measured: str
    contenders: Callable[[], Iterable[Contender]]
    effort: Effort
    absent: tuple[Absence, ...] = ()
    cold: bool = False


@dataclass(frozen=True)
class Result:
    """What became of one contender; without a timing where it is not correct."""

    case: str
    implementation: str
    measured: str
    verdict: Verdict
    timing: Timing | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.implementation == OURS


def hold(contest: Contest, device: torch.device, tell: Callable[[str], None] = print) -> list[Result]:
    """Run a contest; `tell` hears what is being done."""
    checked = _check(contest, tell)
    calls = {str(number): call for number, (_, call) in enumerate(checked) if call is not None}
    tell(f"{contest.name}: timing {len(calls)} implementations in turn")
    timings = interleave(calls, contest.effort, device, contest.cold)
    return [replace(result, timing=timings.get(str(number))) for number, (result, _) in enumerate(checked)]


def _check(contest: Contest, tell: Callable[[str], None]) -> list[tuple[Result, Call | None]]:
    """Everyone's result so far, and what there is to time where it is correct."""
    checked: list[tuple[Result, Call | None]] = []
    for contender in contest.contenders():
        tell(f"{contest.name}: checking {contender.implementation}, {contender.case}")
        call: Call | None = None
        try:
            call, verdict = contender.prepare()
        except Exception as error:
            # One that cannot run, for lack of memory say, must not end the others' race.
            verdict = Verdict(False, {"failed": f"{type(error).__name__}: {error}".splitlines()[0]})
        result = Result(
            contender.case, contender.implementation, contest.measured, verdict, facts=contender.facts
        )
        checked.append((result, call if verdict.correct else None))
    return checked
