"""A suite's run in which ours are slower on purpose, for `imagen-fast bench compare` to find.

`python -P tests/benchmarks/importable/slowed_run.py 5% attention --rounds 200 --json slowed.json`; after the
share come the arguments of `imagen-fast bench`.
"""

import sys
import time
from dataclasses import replace
from functools import partial

from imagen_fast.benchmarks import cli, suites
from imagen_fast.benchmarks.contender import OURS


def slower(call, share):
    """As `call`, and busy for a share of its time beyond."""

    def run():
        began = time.perf_counter()
        given = call()
        end = began + (time.perf_counter() - began) * (1 + share)
        while time.perf_counter() < end:
            pass
        return given

    return run


def prepared(contender, share):
    call, verdict = contender.prepare()
    return slower(call, share), verdict


def built(contender, share):
    return slower(contender.build(), share)


def slowed(contenders, share):
    for contender in contenders():
        if contender.implementation.startswith(OURS):
            made = {"prepare": partial(prepared, contender, share)}
            if contender.build is not None:
                made["build"] = partial(built, contender, share)
            contender = replace(contender, **made)
        yield contender


class SlowedSuite(suites.Suite):
    """`share` is set once for the process."""

    share = 0.0

    def contests(self, device, quick):
        for contest in super().contests(device, quick):
            yield replace(contest, contenders=partial(slowed, contest.contenders, self.share))


def main():
    SlowedSuite.share = cli._share(sys.argv[1])
    cli.SUITES = {name: SlowedSuite(suite.module, suite.what) for name, suite in suites.SUITES.items()}
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
