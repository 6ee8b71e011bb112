"""What two runs of the same code may differ by, told from the contenders whose code did not change.

Times are logarithms here, so that a difference is a ratio. A contender's time in a record is the mean of its
fastest third of rounds: others' work on a machine only adds time, and it may hit half of all rounds of one
run and none of the next, which moves a median by far more than the changes that are looked for.

Between the records, what contender i of contest g changed by without a change of its code is

    shift + u[g] + w[i] + e[i],    u ~ N(0, contest^2),  w ~ N(0, contender^2),  e ~ N(0, W)

the whole machine, the minutes of the contest, the process (where its code and data happen to lie), and the
rounds. W is estimated from the rounds; the first three from the references, the contenders that did not
change. For each of ours this predicts a change from those of the references, near ones most, with its
uncertainty (kriging with random effects); what ours changed by beyond that is the effect. The two spreads are
not known but weighed by their likelihood on a grid, so that few references make wide intervals, not bold.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rounds = tuple[Sequence[float], Sequence[float]]
# The sizes of the runs that the rounds of A and of B come from.
Runs = tuple[Sequence[int], Sequence[int]]

FASTEST = 1 / 3
# Of fewer rounds nothing can be said.
LEAST = 3

# What is known without any reference: a machine of the same kind is rarely off by more than a factor of 2.7,
# since others' work has doubled times from one run to the next; spreads between runs, as half-Cauchy scales,
# from runs of the same code (docs/compare.md).
SHIFT = 0.5
CONTEST = 0.02
CONTENDER = 0.01
# Small moves, of a clock, hit all code alike; large ones are others' work, which hits some code more.
# Where the machine seems to have moved by a tenth, what it did to one contender is as uncertain as that.
MOVE = 0.1
# Where the spread of a contender's rounds changed by more than this factor beside the references', what
# disturbed it did not disturb them, and they cannot tell how far its fastest rounds moved.
UNLIKE = 2
# Of a spread: what is less than this is calm, however often one is another.
_CALM = 1e-4
# A variance: rounds that are equal must not make a singular matrix.
_TICK = 1e-12
_STEPS = np.array([0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0]) / 100


class Centre(NamedTuple):
    """The logarithm of a contender's time in one record, its standard error, and degrees of freedom.

    `influence` is how far each round moves it, or each run where there are several: [rounds or runs], of mean
    0. `spread`: how much
    slower the middle third of rounds is than the fastest.
    """

    log: float
    error: float
    freedom: float
    influence: Array
    spread: float


def centres(pairs: Sequence[Rounds], runs: Sequence[Runs] | None = None) -> list[tuple[Centre, Centre]]:
    """Of every contender in both records, from its seconds in A and in B.

    As many rounds are taken of both, since the fastest few of many lie lower than those of few.

    Args:
        runs: of every contender, how many of the rounds each run of a record has; one run where not given.
    """
    cut = [tuple(side[: min(map(len, pair))] for side in pair) for pair in pairs]
    sizes = [tuple((len(side),) for side in pair) for pair in cut] if runs is None else runs
    made = (_of_record(*side) for side in zip(zip(*cut, strict=True), zip(*sizes, strict=True), strict=True))
    return list(zip(*made, strict=True))


def _of_record(rounds: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]]) -> list[Centre]:
    """Of all contenders of one record."""
    usual = statistics.fmean(map(resemblance, rounds))
    found = [centre(seconds, usual) for seconds in rounds]
    together = [_by_run(c.influence, np.cumsum(of)) for c, of in zip(found, sizes, strict=True)]
    if min(map(len, together)) < 2:
        return found
    # What whole runs differ by says how sure a centre is, whatever their rounds have in common: the variance
    # of clusters (Liang & Zeger 1986). All contenders tell it together, since each alone has few runs.
    ratios = [
        float(of @ of) / alone * len(of) / (len(of) - 1)
        for of, c in zip(together, found, strict=True)
        if (alone := float(c.influence @ c.influence)) > 0
    ]
    repeats = max(1.0, statistics.fmean(ratios)) if ratios else 1.0
    return [
        centre(seconds, repeats=repeats)._replace(influence=of)
        for seconds, of in zip(rounds, together, strict=True)
    ]


def _by_run(influence: Array, ends: NDArray[np.int64]) -> Array:
    """The influence of whole runs, of which the last may be cut: [runs]."""
    return np.add.reduceat(influence, np.concatenate([[0], ends[ends < len(influence)]]))


def centre(seconds: Sequence[float], usual: float = 0.0, repeats: float | None = None) -> Centre:
    """Of the rounds in order.

    The standard error is that of a trimmed mean, from the rounds with the slow ones put at the edge. Rounds
    that resemble their neighbours count for less, as in an autoregression of first order: by their own
    resemblance where that is not chance, and by what is `usual` in the record, which is surer; or `repeats`
    says how many are as good as one independent one.
    """
    logs = _logs(seconds)
    kept = max(min(LEAST, len(logs)), round(FASTEST * len(logs)))
    held = np.minimum(logs, np.partition(logs, kept - 1)[kept - 1])
    influence = (held - held.mean()) * len(logs) / kept
    if repeats is None:
        own = resemblance(seconds)
        alike = min(max(0.0, usual, own if own > 1.5 / math.sqrt(len(logs)) else 0.0), 0.95)
        repeats = (1 + alike) / (1 - alike)
    repeats = min(repeats, len(logs))
    variance = float(influence @ influence) * repeats / (len(logs) * max(1, len(logs) - 1))
    fast, middle, _ = np.array_split(np.sort(logs), 3)
    return Centre(
        float(np.sort(logs)[:kept].mean()),
        math.sqrt(variance),
        max(1.0, kept / repeats - 1),
        influence,
        float(middle.mean() - fast.mean()),
    )


def resemblance(seconds: Sequence[float]) -> float:
    """The autocorrelation of neighbouring rounds, which comes out too small where they are few (Kendall)."""
    logs = _logs(seconds)
    ranks = np.unique(logs, return_inverse=True)[1].astype(np.float64)  # an outlier is only the last
    ranks -= ranks.mean()
    alike = float(ranks[1:] @ ranks[:-1]) / max(float(ranks @ ranks), 1.0)
    return alike + (1 + 3 * alike) / len(logs)


def _logs(seconds: Sequence[float]) -> Array:
    # No clock here ticks faster: a call may have taken none of the processor's time.
    return np.log(np.maximum(np.asarray(seconds, dtype=np.float64), 1e-9))


@dataclass(frozen=True)
class Timed:
    """A contender that both records have timed.

    Args:
        contest: those of one contest share their rounds.
        reference: its code did not change.
    """

    contest: str
    reference: bool
    a: Centre
    b: Centre

    @property
    def change(self) -> float:
        return self.b.log - self.a.log

    @property
    def variance(self) -> float:
        return self.a.error**2 + self.b.error**2

    @property
    def freedom(self) -> float:
        """Welch's."""
        parts = [(c.error**4) / c.freedom for c in (self.a, self.b)]
        return self.variance**2 / sum(parts) if sum(parts) > 0 else math.inf

    @property
    def restlessness(self) -> float:
        """How much more the rounds of B spread than those of A: a logarithm."""
        return math.log((self.b.spread + _CALM) / (self.a.spread + _CALM))


@dataclass(frozen=True)
class Effect:
    """What a contender changed by, beyond what the references explain: of Student's distribution.

    Args:
        log: the logarithm of B over A.
        scale, freedom: of the distribution.
        of_rounds, lasting: at the likeliest spreads, the variance that more rounds make smaller and the rest.
        expected: the logarithm of the change that the references explain.
    """

    log: float
    scale: float
    freedom: float
    of_rounds: float
    lasting: float
    expected: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Of logarithms, two-sided."""
        half = student(confidence, self.freedom) * self.scale
        return self.log - half, self.log + half


def student(confidence: float, freedom: float) -> float:
    """Student's t that holds `confidence` between -t and t: its density summed, to 0.1% from 1 d.o.f. on."""
    freedom = min(freedom, 1e9)
    steps = np.linspace(0, 15, 6001)
    t = np.sinh(steps)  # far tails are long
    density = np.exp(-(freedom + 1) / 2 * np.log1p(t**2 / freedom)) * np.cosh(steps)
    inside = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.interp(confidence, inside / inside[-1], t))


class Between(NamedTuple):
    """What lies between two runs of the same code, in logarithms.

    The shift of the whole machine, and the standard deviations that come to it in a contest and a contender.
    """

    shift: float
    contest: float
    contender: float


class Noise:
    """The noise between two records, as the references show it."""

    def __init__(self, timed: Iterable[Timed]) -> None:
        self._contests: Mapping[str, list[Timed]] = defaultdict(list)
        for contender in timed:
            self._contests[contender.contest].append(contender)
        self._alike = tuple(self._correlation(side) for side in ("a", "b"))
        contest, contender = np.meshgrid(_STEPS, _STEPS)
        self._contest, self._contender = contest.ravel() ** 2, contender.ravel() ** 2
        self._prior = _half_cauchy(contest.ravel(), CONTEST) + _half_cauchy(contender.ravel(), CONTENDER)
        self._terms = {
            name: self._evidence(self._references(members)) for name, members in self._contests.items()
        }
        self._total = sum(self._terms.values(), np.zeros((4, len(self._prior))))

    @property
    def between(self) -> Between:
        weights, shift, _ = self._weigh(self._total)
        spreads = (float(weights @ np.sqrt(variances)) for variances in (self._contest, self._contender))
        return Between(float(weights @ shift), *spreads)

    def effect(self, of: Timed) -> Effect:
        """What `of` changed by, told from all references but itself."""
        near = [r for r in self._references(self._contests[of.contest]) if r is not of]
        total = self._total - self._terms[of.contest] + self._evidence(near)
        weights, shift, shift_variance = self._weigh(total)
        within = self._within([of, *near])
        steps = len(weights)
        between = self._contest[:, None] + np.zeros((steps, len(near)))
        pull = np.linalg.solve(self._covariance(near), (between + within[0, 1:])[..., None])[..., 0]
        changes = np.array([r.change for r in near])
        expected = shift + ((changes - shift[:, None]) * pull).sum(1)
        left = 1 - pull.sum(1)
        variance = (
            within[0, 0]
            + self._contender
            + self._contest
            - (pull * (between + within[0, 1:])).sum(1)
            + left**2 * shift_variance
        )

        mean = float(weights @ expected)
        moved = (mean**2 / MOVE) ** 2
        aside = moved + self._unlike(of, near)
        likeliest = int(weights.argmax())
        lasting = self._lasting(likeliest, len(near))
        # Neither variance is known: that of the rounds has their degrees of freedom, and of the rest there is
        # a mean and a variance, as of an inverse chi-squared. Their sum is Satterthwaite's; what is put aside
        # makes it no surer.
        typical = float(weights @ variance)
        rounds = min(of.variance, typical)
        rest = max(typical - rounds + float(weights @ (expected - mean) ** 2), _TICK)
        unsure = float(weights @ (variance - typical) ** 2) / rest**2
        rest_freedom = 4 + 2 / max(unsure, 1e-9)
        rest *= (rest_freedom - 2) / rest_freedom
        return Effect(
            of.change - mean,
            math.sqrt(rounds + rest + aside),
            (rounds + rest) ** 2 / (rounds**2 / of.freedom + rest**2 / rest_freedom),
            max(float(variance[likeliest]) - lasting, 0.0),
            lasting + aside,
            mean,
        )

    def _unlike(self, of: Timed, near: Sequence[Timed]) -> float:
        """A variance, where `of` was disturbed in one of the records and the references were not."""
        others = near or [r for members in self._contests.values() for r in self._references(members)]
        usual = statistics.median(r.restlessness for r in others) if others else 0.0
        less, more = sorted((of.a.spread * math.exp(usual), of.b.spread))
        return max(0.0, more - UNLIKE * (less + _CALM)) ** 2

    def _weigh(self, total: Array) -> tuple[Array, Array, Array]:
        """Of each pair of spreads, its probability, the machine's shift and its variance: [steps] each."""
        determinant, a, b, c = total
        a = a + 1 / SHIFT**2  # about 0 before anything is known
        fit = -0.5 * (determinant + np.log(a) + c - b**2 / a) + self._prior
        weights = np.exp(fit - fit.max())
        return weights / weights.sum(), b / a, 1 / a

    def _lasting(self, step: int, near: int) -> float:
        """The variance of an effect beside `near` references, were there no end of rounds."""
        contest, own = float(self._contest[step]), float(self._contender[step]) + _TICK
        counts = [len(self._references(members)) for members in self._contests.values()]
        left = own / (own + near * contest)
        told = sum(count / (own + count * contest) for count in counts)
        return own + contest * left + left**2 / (1 / SHIFT**2 + told)

    def _references(self, members: Sequence[Timed]) -> list[Timed]:
        return [member for member in members if member.reference]

    def _correlation(self, side: str) -> float:
        """Of two contenders in one round: the mean over all pairs in the record."""
        found, count = 0.0, 0
        for members in self._contests.values():
            rows = [getattr(member, side).influence for member in members]
            rows = [row / math.sqrt(row @ row) for row in rows if len(row) == len(rows[0]) and row @ row > 0]
            if len(rows) > 1:
                pairs = np.array(rows) @ np.array(rows).T
                found += float(pairs.sum() - np.trace(pairs)) / 2 * len(rows[0])
                count += len(rows) * (len(rows) - 1) // 2 * len(rows[0])
        return min(max(found / count, 0.0), 0.95) if count else 0.0

    def _within(self, members: Sequence[Timed]) -> Array:
        """The covariance of changes for the sake of the rounds alone: [members, members]."""
        whole = np.zeros((len(members), len(members)))
        for side, alike in zip(("a", "b"), self._alike, strict=True):
            errors = np.array([getattr(member, side).error for member in members])
            part = alike * np.outer(errors, errors)
            np.fill_diagonal(part, errors**2)
            whole += part
        return whole

    def _covariance(self, members: Sequence[Timed]) -> Array:
        """Of changes, for each pair of spreads: [steps, members, members]."""
        own = self._contender + _TICK
        eye = np.eye(len(members))
        return self._within(members) + self._contest[:, None, None] + own[:, None, None] * eye

    def _evidence(self, members: Sequence[Timed]) -> Array:
        """Of a contest's references, for each pair of spreads, what the likelihood is made of: [4, steps].

        The logarithm of the determinant, and the quadratic forms of (1, 1), (1, change), (change, change).
        """
        covariance = self._covariance(members)
        changes = np.array([member.change for member in members])
        inverse = np.linalg.inv(covariance)
        ones = inverse.sum(1)
        return np.stack(
            [
                np.linalg.slogdet(covariance)[1],
                ones.sum(1),
                ones @ changes,
                np.einsum("i,gij,j->g", changes, inverse, changes),
            ]
        )


def _half_cauchy(values: Array, scale: float) -> Array:
    """The logarithm of its density times the width of a step of the grid."""
    widths = np.gradient(_STEPS)
    width = widths[np.searchsorted(_STEPS, values)]
    return np.log(width / (1 + (values / scale) ** 2))
