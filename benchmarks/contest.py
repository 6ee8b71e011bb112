"""Contenders that are measured together: built, checked, and the correct ones timed round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from imagen_fast.benchmarks import apart
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Effort, Failed, Sample, Sampler, Timing, interleave, sampler
from imagen_fast.benchmarks.peers import Absence, Refused

# Builds and checks the contender of this number; Failed, or any error of its own, where it cannot.
Enter = Callable[[int, Contender], tuple[Sampler, Verdict]]


@dataclass(frozen=True)
class Contest:
    """Contenders of one kind of work; each of ours is compared with every peer.

    Args:
        measured: the pass: `forward`, `backward`, `step`, ...
        contenders: called once a process, and to list them: it builds nothing. Apart, what the checks share
            is gone before anything is timed.
        cold: on a GPU, empty the second-level cache before each call (for kernels, not for whole steps).
        apart: each contender lives in a process of its own that does nothing else, as its user runs it:
            neighbours share no heap. `contenders` must be picklable then, and each have a `build`.
        preload: modules that processes apart begin with, since they are slow to import.
    """

    name: str
    measured: str
    contenders: Callable[[], Iterable[Contender]]
    effort: Effort
    absent: tuple[Absence, ...] = ()
    cold: bool = False
    apart: bool = False
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What became of one contender; without a timing where it is not correct.

    Args:
        absence: of a peer that has refused the case.
    """

    case: str
    implementation: str
    measured: str
    verdict: Verdict
    timing: Timing | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    cold: bool = False
    absence: Absence | None = None

    @property
    def ours(self) -> bool:
        return self.implementation == OURS


def hold(contest: Contest, device: torch.device, tell: Callable[[str], None] = print) -> list[Result]:
    """Run a contest; `tell` hears what is being done."""
    with ExitStack() as processes:
        with ExitStack() as checks:
            enter = _apart(contest, device, processes, checks) if contest.apart else _here(contest, device)
            results, samplers = _check(contest, enter, tell)
        tell(f"{contest.name}: timing {len(samplers)} implementations in turn")
        timings = interleave(samplers, contest.effort)
    return [_timed(result, timings.get(str(number))) for number, result in enumerate(results)]


def _here(contest: Contest, device: torch.device) -> Enter:
    def enter(number: int, contender: Contender) -> tuple[Sampler, Verdict]:
        call, verdict = contender.prepare()
        return sampler(call, device, contest.cold), verdict & Verdict(True, contender.told(call))

    return enter


def _apart(contest: Contest, device: torch.device, processes: ExitStack, checks: ExitStack) -> Enter:
    start = apart.start_method(contest.preload)
    checked = checks.enter_context(apart.Checks(start, contest.contenders))

    def enter(number: int, contender: Contender) -> tuple[Sampler, Verdict]:
        verdict = checked.verdict(number)
        if not verdict.correct:
            return _nothing, verdict
        worker = apart.Worker(start, contest.contenders, number, device, contest.cold)
        processes.enter_context(worker)
        return worker.sample, verdict & Verdict(True, worker.ready())

    return enter


def _nothing() -> Sample:
    raise Failed("it was not correct, and is not timed")


def _check(
    contest: Contest, enter: Enter, tell: Callable[[str], None]
) -> tuple[list[Result], dict[str, Sampler]]:
    """Everyone's result so far; by its number, what takes samples of each that is correct."""
    results: list[Result] = []
    samplers: dict[str, Sampler] = {}
    for number, contender in enumerate(contest.contenders()):
        tell(f"{contest.name}: checking {contender.implementation}, {contender.case}")
        names = contender.case, contender.implementation, contest.measured
        facts = contender.facts | {"contest": contest.name, "apart": contest.apart}
        try:
            sample, verdict = enter(number, contender)
            facts |= contender.later_facts()
        except Refused as refused:
            results.append(Result(*names, Verdict(False), absence=refused.absence))
            continue
        except Exception as error:
            # One that cannot run, for lack of memory say, must not end the others' race.
            verdict = _failure(Failed.because(error))
        if verdict.correct:
            samplers[str(number)] = sample
        results.append(Result(*names, verdict, facts=facts, cold=contest.cold))
    return results, samplers


def _timed(result: Result, timing: Timing | Failed | None) -> Result:
    if isinstance(timing, Failed):
        return replace(result, verdict=_failure(timing))
    return replace(result, timing=timing)


def _failure(failed: Failed) -> Verdict:
    return Verdict(False, {"failed": str(failed)})
