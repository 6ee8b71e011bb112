"""Runs that might have been: a record's rounds drawn again, and what lies between two runs added.

`python -P tests/benchmarks/importable/resampled_records.py RECORD` prints how often each verdict is given.
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imagen_fast.benchmarks import record
from imagen_fast.benchmarks.compare import compare
from imagen_fast.benchmarks.contender import OURS

# Rounds that stay together: neighbours resemble each other a little.
BLOCK = 4

# Standard deviations between runs: of the machine, of a contest's minutes, of a contender's process.
SHIFT, CONTEST, CONTENDER = 0.01, 0.007, 0.004


def resampled(made, rng, rounds=None):
    """Another run of what `made` measured; everyone in a contest has the same rounds drawn."""
    shift = rng.normal(0, SHIFT)
    drawn = {}
    results = []
    for result in made["results"]:
        count = len(result["samples"])
        if count:
            key = (result["case"], count)
            if key not in drawn:
                starts = rng.integers(0, count, -(-(rounds or count) // BLOCK))
                order = ((starts[:, None] + np.arange(BLOCK)) % count).ravel()[: rounds or count]
                drawn[key] = order, rng.normal(0, CONTEST)
            order, minutes = drawn[key]
            factor = math.exp(shift + minutes + rng.normal(0, CONTENDER))
            result = result | {"samples": (np.array(result["samples"])[order] * factor).tolist()}
        results.append(result)
    return made | {"results": results}


def slowed(made, number, share):
    """The record with its result of this number slower by `share`."""
    results = list(made["results"])
    samples = [seconds * (1 + share) for seconds in results[number]["samples"]]
    results[number] = results[number] | {"samples": samples}
    return made | {"results": results}


@dataclass
class Outcome:
    """Of comparisons of which all cases but one are unchanged.

    Args:
        unchanged, slowed: how often each verdict was given.
        alarms: comparisons in which an unchanged case was called faster or slower.
        all_same: comparisons in which all unchanged cases were called same.
    """

    times: int
    unchanged: Counter = field(default_factory=Counter)
    slowed: Counter = field(default_factory=Counter)
    alarms: int = 0
    all_same: int = 0


def repeat(made, times, seed, rounds=None, share=0.05, runs=1):
    """Runs beside runs, one case of ours slower by `share` in the second: another one each time."""
    rng = np.random.default_rng(seed)
    ours = [
        number
        for number, result in enumerate(made["results"])
        if result["implementation"].startswith(OURS) and result["samples"]
    ]
    outcome = Outcome(times)
    for _ in range(times):
        number = int(rng.choice(ours))
        bad = made["results"][number]["case"], made["results"][number]["implementation"]
        before = [resampled(made, rng, rounds) for _ in range(runs)]
        after = [slowed(resampled(made, rng, rounds), number, share) for _ in range(runs)]
        found = compare(before, after)
        verdicts = Counter()
        for finding in found.findings:
            if (finding.case, finding.implementation) == bad:
                outcome.slowed[finding.verdict] += 1
            else:
                verdicts[finding.verdict] += 1
        outcome.unchanged += verdicts
        outcome.alarms += verdicts["faster"] + verdicts["slower"] > 0
        outcome.all_same += set(verdicts) == {"same"}
    return outcome


def main():
    global SHIFT, CONTEST, CONTENDER
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rounds", type=int, help="those of the record where not given")
    parser.add_argument("--runs", type=int, default=1, help="of each")
    parser.add_argument("--only", default="", help="the cases with this in their name")
    parser.add_argument("--between", type=float, nargs=3, help="SHIFT, CONTEST and CONTENDER, as shares")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.between:
        SHIFT, CONTEST, CONTENDER = given.between
    made = record.read(given.record)
    made["results"] = [result for result in made["results"] if given.only in result["case"]]
    print(repeat(made, given.times, given.seed, given.rounds, runs=given.runs))


if __name__ == "__main__":
    main()
