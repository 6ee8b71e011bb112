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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FASTEST = 1 / 3
# Of fewer rounds nothing can be said.
LEAST = 3

# What is known without any reference: a machine of the same kind is rarely off by more than 20%; spreads
# between runs, as half-Cauchy scales, from runs of the same code (docs/compare.md).
SHIFT = 0.1
CONTEST = 0.02
CONTENDER = 0.01
# Small moves, of a clock, hit all code alike; large ones are others' work, which hits some code more.
# Where the machine seems to have moved by a tenth, what it did to one contender is as uncertain as that.
MOVE = 0.1
# A variance: rounds that are equal must not make a singular matrix.
_TICK = 1e-12
_STEPS = np.array([0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0]) / 100


class Centre(NamedTuple):
    """The logarithm of a contender's time in one record, its standard error, and degrees of freedom.

    `influence` is how far each round moves it: [rounds], of mean 0.
    """

    log: float
    error: float
    freedom: int
    influence: Array


def centre(seconds: Sequence[float]) -> Centre:
    """Of the rounds in order.

    The standard error is that of a trimmed mean, from the rounds with the slow ones put at the edge; rounds
    that resemble their neighbours count for less (Bartlett's weights), never for more.
    """
    # No clock here ticks faster: a call may have taken none of the processor's time.
    logs = np.log(np.maximum(np.asarray(seconds, dtype=np.float64), 1e-9))
    kept = max(min(LEAST, len(logs)), round(FASTEST * len(logs)))
    edge = np.partition(logs, kept - 1)[kept - 1]
    held = np.minimum(logs, edge)
    influence = (held - held.mean()) * len(logs) / kept
    own = float(influence @ influence)
    lags = int(len(logs) ** (1 / 3))
    shared = sum(
        2 * (1 - lag / (lags + 1)) * float(influence[lag:] @ influence[:-lag]) for lag in range(1, lags + 1)
    )
    variance = max(own, own + shared) / (len(logs) * max(1, len(logs) - 1))
    return Centre(float(np.sort(logs)[:kept].mean()), math.sqrt(variance), kept - 1, influence)


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
    """Student's t that holds `confidence` between -t and t; to 1% from 3 degrees of freedom on (Wallace)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if freedom > 1e6:
        return z
    z *= (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(z * z / freedom))


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
        total_variance = float(weights @ (variance + (expected - mean) ** 2)) + moved
        likeliest = int(weights.argmax())
        lasting = self._lasting(likeliest, len(near))
        # How sure the variance itself is: of the spreads between runs, and of the rounds.
        unsure = float(weights @ variance**2) / float(weights @ variance) ** 2 - 1
        unsure += 2 / of.freedom * (of.variance / total_variance) ** 2
        freedom = 4 + 2 / max(unsure, 1e-9)
        return Effect(
            of.change - mean,
            math.sqrt(total_variance * (freedom - 2) / freedom),
            freedom,
            max(float(variance[likeliest]) - lasting, 0.0),
            lasting + moved,
            mean,
        )

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
