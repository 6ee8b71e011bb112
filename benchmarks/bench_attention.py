"""The quick contests of the attention suite for pytest-benchmark: `pytest benchmarks/ --benchmark-json FILE`.

One implementation after another, as pytest-benchmark goes; `imagen-fast bench attention` takes turns.
"""

import pytest
import torch

from imagen_fast.benchmarks.attention import contests

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONTENDERS = [c for contest in contests(DEVICE, quick=True) for c in contest.contenders()]


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda c: f"{c.case} | {c.implementation}")
def test_pass(benchmark, contender):
    call, verdict = contender.prepare()
    assert verdict.correct, verdict.evidence

    def timed():
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark.extra_info |= {"case": contender.case, "implementation": contender.implementation}
    benchmark.pedantic(timed, rounds=5, warmup_rounds=1)
