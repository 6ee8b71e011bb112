"""Real runs of the same code, and of ours made slower, put together anew: how often each verdict is right.

`python -P tests/benchmarks/importable/shuffled_runs.py FILE` tells it of a file that

    python -P tests/benchmarks/importable/shuffled_runs.py FILE --gather before after slowed

made of three folders of records, whose runs alternated: two of unchanged code, and one of `slowed_run.py`.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from imagen_fast.benchmarks import record
from imagen_fast.benchmarks.compare import compare

RESULT = ("contest", "case", "implementation", "correct", "samples")


def gathered(folders):
    """What a comparison needs of each run; six digits of a time."""
    made = {}
    for name, folder in zip(("before", "after", "slowed"), folders, strict=True):
        made[name] = [
            run
            | {
                "results": [
                    {key: result[key] for key in RESULT}
                    | {"samples": [float(f"{seconds:.6g}") for seconds in result["samples"]]}
                    for result in run["results"]
                ],
                "ratios": [],
            }
            for run in record.read_runs(folder)
        ]
    return made


def shuffled(runs, times, seed):
    """Verdicts of unchanged cases and of slowed ones, and how many comparisons had a wrong alarm.

    Which of two neighbouring runs of unchanged code is of A is drawn each time.
    """
    rng = np.random.default_rng(seed)
    unchanged, slowed, alarms = Counter(), Counter(), 0
    for _ in range(times):
        pairs = list(zip(runs["before"], runs["after"], strict=True))
        turned = [pair[:: rng.choice((1, -1))] for pair in pairs]
        a, b = zip(*turned, strict=True)
        count = compare(a, b).count
        alarms += count["faster"] + count["slower"] > 0
        unchanged += count
        slowed += compare(a, runs["slowed"]).count
    return unchanged, slowed, alarms


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--gather", type=Path, nargs=3, metavar="FOLDER")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.gather:
        given.file.write_text(json.dumps(gathered(given.gather)) + "\n")
        return
    unchanged, slowed, alarms = shuffled(json.loads(given.file.read_text()), given.times, given.seed)
    print(f"unchanged {dict(unchanged)}, {alarms} comparisons with a wrong alarm; slowed {dict(slowed)}")


if __name__ == "__main__":
    main()
