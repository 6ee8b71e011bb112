"""Two records of a suite, case by case: faster, slower, same or unclear in the second, with the evidence.

Ours are judged by what they changed by beyond the peers, whose code did not change (`noise.py`). With the
threshold d, the smallest change that matters:

- same: the 98% interval lies within 1/(1 + d) and 1 + d. A change of d is called same in at most 1 of 100;
- faster, slower: not same, and the interval for the family excludes 1. For all cases together it does so
  wrongly in at most 5 of 100 comparisons (Bonferroni);
- unclear: neither. That happens only where the standard error exceeds log(1 + d) / (t_family + t_98). Below,
  another run of the same code is called same in all cases, and a change of d is found, each 95 times in 100.
  Where more rounds can bring the error down to it, how many is told.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.noise import LEAST, Between, Effect, Noise, Timed, centres, student
from imagen_fast.benchmarks.peers import PACKAGED
from imagen_fast.benchmarks.record import Record
from imagen_fast.errors import InvalidInput

Verdict = Literal["faster", "slower", "same", "unclear"]

THRESHOLD = 0.05
# Of wrong alarms in a whole comparison.
ALARMS = 0.05
# Of a change of just the threshold, how often it is called same: so seldom that 95 in 100 can be found.
MISSED = 0.01
# So many peers must agree on what the machine did; with fewer, and with none, only what is far beyond all
# that machines do is called a change.
WITNESSES = 2

# Where the seconds of a round are kept, by the names of the clocks.
TIMERS = {"wall": "samples", "cpu": "cpu_samples"}

# What decides how fast the same code is. The version of our own package is no part of it.
_MACHINE = ("device", "processor", "instructions", "cores", "threads", "python", "gpu", "cuda", "driver")
_OWN_PACKAGE = "imagen-fast"
_MISSING = {"correct": False}


class Name(NamedTuple):
    """Who is compared: `number` tells apart what older records call alike."""

    contest: str
    number: int
    case: str
    implementation: str

    @property
    def ours(self) -> bool:
        """Ours in any of its modes, which peers are not named after."""
        return self.implementation.startswith(OURS)

    def __str__(self) -> str:
        return self.case if self.implementation == OURS else f"{self.case}, {self.implementation}"


class Side(NamedTuple):
    """A record, or several runs as one; what it does not tell is None.

    `date` and `load` are those of the first run. `rounds`: the fewest and the most of its contenders.
    """

    file: str
    commit: str | None
    date: str | None
    load: float | None
    runs: int
    rounds: tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """What became of a case; ratios are B over A.

    Args:
        ratio: beyond what the references explain.
        interval, family_interval: of `ratio`; at 98%, and for all cases together at 95%.
        explained: the ratio that the references explain.
        references: the unchanged contenders of the same contest.
        rounds: in A and in B.
        rounds_needed: in each record; None where it is not unclear, or more rounds would not do.
    """

    case: str
    implementation: str
    verdict: Verdict
    ratio: float
    interval: tuple[float, float]
    family_interval: tuple[float, float]
    median_a: float
    median_b: float
    explained: float
    references: tuple[str, ...]
    rounds: tuple[int, int]
    rounds_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """Of two records. `changed_peers` are no references; whoever is incorrect in either is not compared.

    `between` is what the references say of two runs of the same code. `lost` are those of ours that were
    correct in A, and in B are not, or are missing. Of those with `too_few_rounds` nothing can be said.
    """

    a: Side
    b: Side
    threshold: float
    timer: str
    differences: tuple[str, ...]
    findings: tuple[Finding, ...]
    between: Between
    references: int
    changed_peers: tuple[str, ...]
    incorrect_in_a: tuple[str, ...]
    incorrect_in_b: tuple[str, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    lost: tuple[str, ...]
    too_few_rounds: tuple[str, ...]

    @property
    def count(self) -> Counter[str]:
        return Counter(finding.verdict for finding in self.findings)

    @property
    def worse(self) -> bool:
        """Something of ours is slower, or no longer correct or there."""
        return self.count["slower"] > 0 or bool(self.lost)

    @property
    def undecided(self) -> bool:
        """Of something nothing is known."""
        return self.count["unclear"] > 0 or bool(self.too_few_rounds)

    def as_json(self) -> dict[str, Any]:
        named = {name: getattr(self, name)._asdict() for name in ("a", "b", "between")}
        return asdict(self) | named | {"worse": self.worse, "undecided": self.undecided}


def compare(
    a: Record | Sequence[Record],
    b: Record | Sequence[Record],
    threshold: float = THRESHOLD,
    timer: str = "wall",
    peers: bool = False,
    across_machines: bool = False,
    only: str = "",
    files: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """What changed from `a` to `b`.

    Args:
        a, b: a record, or those of several runs of the same code: what differs between processes and between
            minutes is then told from the runs themselves.
        threshold: the smallest change that matters, as a share.
        timer: a clock of `TIMERS`. Processor time is hardly disturbed by others' work, but blind to waiting.
        peers: judge them too, each by the others.
        across_machines: compare whatever the records were made on.
        only: the cases with this in their name; the peers of all are references.
        files: where the records come from, for the reader.

    Raises:
        InvalidInput: the records have no case in common, were made on different machines, or lack the timer.
    """
    runs_a, runs_b = ([side] if isinstance(side, dict) else list(side) for side in (a, b))
    for name, runs in (("A", runs_a), ("B", runs_b)):
        _check_runs(name, runs)
    first_a, first_b = runs_a[0], runs_b[0]
    if first_a.get("suite") != first_b.get("suite"):
        raise InvalidInput(
            f"A is of the suite {first_a.get('suite')}, B of {first_b.get('suite')}; they must be of one"
        )
    differences = tuple(_differences(first_a, first_b))
    if differences and not across_machines:
        raise InvalidInput(
            f"it would not be fair to compare these records: {'; '.join(differences)}; with --across-machines"
            " they are compared all the same, by how ours changed beside the peers"
        )
    by_contest = all("contest" in result for run in (*runs_a, *runs_b) for result in run["results"])
    in_a, in_b = _together(runs_a, by_contest), _together(runs_b, by_contest)
    both = [name for name in in_a if name in in_b and in_a[name]["correct"] and in_b[name]["correct"]]
    rounds = {name: (_seconds(in_a[name], timer), _seconds(in_b[name], timer)) for name in both}
    enough = [name for name in both if min(map(len, rounds[name])) >= LEAST]
    sizes = [(in_a[name]["runs"], in_b[name]["runs"]) for name in enough]
    timed = {
        name: Timed(f"{name.contest} {name.number}", not name.ours, *found)
        for name, found in zip(enough, centres([rounds[name] for name in enough], sizes), strict=True)
    }
    judged = [name for name in timed if (name.ours or peers) and only in str(name)]
    few = [name for name in both if name not in timed and (name.ours or peers) and only in str(name)]
    lost = [
        name
        for name, result in in_a.items()
        if name.ours and only in str(name) and result["correct"] and not in_b.get(name, _MISSING)["correct"]
    ]
    if not (judged or few or lost):
        raise InvalidInput(
            f"A and B have no correct case in common{f' with {only!r} in its name' * bool(only)}"
        )

    noise = Noise(timed.values())
    references = [name for name, contender in timed.items() if contender.reference]
    changed = [name for name in references if _alarm(noise.effect(timed[name]), len(references))]
    # Of two that disagree nobody knows which has changed, nor whether one alone has.
    if len(references) - len(changed) < WITNESSES:
        changed = []
    dropped = changed if len(references) >= WITNESSES else references
    if dropped:
        timed |= {name: replace(timed[name], reference=False) for name in dropped}
        noise = Noise(timed.values())
    references = [name for name in references if name not in dropped]
    bound = math.log1p(threshold)
    findings = []
    for name in judged:
        effect = noise.effect(timed[name])
        near = (n for n in references if n[:2] == name[:2] and n != name)
        findings.append(
            _finding(name, effect, rounds[name], tuple(n.implementation for n in near), len(judged), bound)
        )
    return Comparison(
        _side(runs_a, files[0]),
        _side(runs_b, files[1]),
        threshold,
        timer,
        differences,
        tuple(findings),
        noise.between,
        len(references),
        tuple(map(str, changed)),
        *(
            tuple(name for name in map(str, names) if only in name)
            for names in (
                _incorrect(in_a),
                _incorrect(in_b),
                (name for name in in_a if name not in in_b),
                (name for name in in_b if name not in in_a),
                lost,
                few,
            )
        ),
    )


def _check_runs(name: str, runs: Sequence[Record]) -> None:
    for run in runs:
        for result in run["results"]:
            if lacking := {"case", "implementation", "correct", "samples"} - result.keys():
                raise InvalidInput(
                    f"{name} cannot be compared: a result in it lacks {', '.join(sorted(lacking))}"
                )
    for run in runs[1:]:
        commits = runs[0]["machine"].get("commit"), run["machine"].get("commit")
        differences = list(_differences(runs[0], run, "one run", "another"))
        if runs[0].get("suite") != run.get("suite"):
            differences.append("they are of different suites")
        if commits[0] != commits[1]:
            differences.append(f"commit {_words(commits[0])} in one run, {_words(commits[1])} in another")
        if differences:
            raise InvalidInput(f"the runs of {name} are not of the same code: {'; '.join(differences)}")


def _together(runs: Sequence[Record], by_contest: bool) -> dict[Name, dict[str, Any]]:
    """Each result with the rounds of all runs, one run after another; correct where it is so in every run."""
    named = [_by_name(run["results"], by_contest) for run in runs]
    found = {}
    for name in dict.fromkeys(name for of in named for name in of):
        every = [of[name] for of in named if name in of]
        found[name] = {
            "correct": len(every) == len(runs) and all(result["correct"] for result in every),
            "runs": [count for result in every if (count := len(result["samples"]))],
            **{
                kept: [second for result in every for second in result.get(kept) or ()]
                for kept in TIMERS.values()
            },
        }
    return found


def _side(runs: Sequence[Record], file: str) -> Side:
    machine = runs[0]["machine"]
    rounds = [len(result["samples"]) for run in runs for result in run["results"] if result["samples"]]
    rounds = rounds or [0]
    return Side(file, *map(machine.get, ("commit", "date", "load")), len(runs), (min(rounds), max(rounds)))


def _finding(
    name: Name,
    effect: Effect,
    seconds: Sequence[Sequence[float]],
    references: tuple[str, ...],
    family: int,
    bound: float,
) -> Finding:
    interval, wide = effect.interval(1 - 2 * MISSED), effect.interval(1 - ALARMS / family)
    rounds = (len(seconds[0]), len(seconds[1]))
    verdict: Verdict = "unclear"
    if -bound < interval[0] and interval[1] < bound:
        verdict = "same"
    elif _alarm(effect, family):
        verdict = "slower" if effect.log > 0 else "faster"
    return Finding(
        name.case,
        name.implementation,
        verdict,
        math.exp(effect.log),
        (math.exp(interval[0]), math.exp(interval[1])),
        (math.exp(wide[0]), math.exp(wide[1])),
        *map(statistics.median, seconds),
        math.exp(effect.expected),
        references,
        rounds,
        _rounds_needed(effect, rounds, family, bound) if verdict == "unclear" else None,
    )


def _alarm(effect: Effect, family: int) -> bool:
    low, high = effect.interval(1 - ALARMS / family)
    return low > 0 or high < 0


def _rounds_needed(effect: Effect, rounds: tuple[int, int], family: int, bound: float) -> int | None:
    """So many that no verdict is unclear; None where what rounds cannot mend is too much already."""
    t = student(1 - ALARMS / family, effect.freedom) + student(1 - 2 * MISSED, effect.freedom)
    left = (bound / t) ** 2 - effect.lasting
    if left <= 0:
        return None
    taken = min(rounds)
    # Rounds make the spreads between runs surer too, which may be all that lacks.
    needed = max(taken * effect.of_rounds / left, 1.5 * taken)
    # Two digits: it is an estimate.
    digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / digits) * digits


def _by_name(results: Iterable[dict[str, Any]], by_contest: bool) -> dict[Name, dict[str, Any]]:
    """Older records do not name contests: there, contenders of one case are taken for one."""
    found: dict[Name, dict[str, Any]] = {}
    for result in results:
        case, implementation = result["case"], result["implementation"]
        name = Name(result["contest"] if by_contest else case, 0, case, implementation)
        while name in found:
            name = name._replace(number=name.number + 1)
        found[name] = result
    return found


def _seconds(result: Mapping[str, Any], timer: str) -> list[float]:
    seconds = result.get(TIMERS[timer]) or []
    if result["samples"] and not seconds:
        raise InvalidInput(
            "a record without processor seconds, of a GPU or an older one, is compared by wall time"
        )
    return seconds


def _incorrect(results: Mapping[Name, dict[str, Any]]) -> Iterable[Name]:
    return (name for name, result in results.items() if not result["correct"])


def _differences(record_a: Record, record_b: Record, in_a: str = "A", in_b: str = "B") -> Iterable[str]:
    a, b = record_a["machine"], record_b["machine"]
    for fact in _MACHINE:
        if a.get(fact) != b.get(fact):
            yield f"{fact} {_words(a.get(fact))} in {in_a}, {_words(b.get(fact))} in {in_b}"
    ours, theirs = (dict(machine.get("versions") or {}) for machine in (a, b))
    timed = {r["implementation"] for r in (*record_a["results"], *record_b["results"]) if r["samples"]}
    idle = {peer.name for peer in PACKAGED if not any(peer.name in name for name in timed)}
    for package in dict.fromkeys((*ours, *theirs)):
        if package not in (_OWN_PACKAGE, *idle) and ours.get(package) != theirs.get(package):
            yield f"{package} {_words(ours.get(package))} in {in_a}, {_words(theirs.get(package))} in {in_b}"


def _words(fact: Any) -> str:
    return ", ".join(map(str, fact)) if isinstance(fact, list) else "unknown" if fact is None else str(fact)
