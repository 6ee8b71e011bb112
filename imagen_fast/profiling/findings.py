"""What is concluded from a recording: figures, the verdict with its evidence, and what would help.

Only the shapes of the conclusions; `summary` and `verdict` draw them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# Every bottleneck that a verdict can name, and what it means.
BOTTLENECKS = {
    "data": "waiting for data: storage or the network do not deliver",
    "decoding": "decoding: processors that turn files into tensors do not keep up",
    "copying": "copying between host and device, or between types and layouts",
    "launching": "launching: Python and the framework do not hand out work fast enough",
    "memory": "memory-bound: operations wait for memory",
    "compute": "compute-bound: the arithmetic units are busy",
    "communication": "communication: processes wait for each other",
    "throttled": "throttled: power, heat, a quota or other programs take the machine away",
    "paused": "paused: between steps something else goes on, such as validation or checkpoints",
    "unknown": "unknown: nothing was recorded that could tell",
}


@dataclass
class Summary:
    """The figures of a run; None where they were not measured.

    Args:
        step_seconds: median, without the first steps.
        images_per_second: over the steady part, of all processes together.
        operations_per_step, model_operations_per_step: carried out; without those made again.
        mfu, hfu: model and hardware FLOP utilisation, shares of the peak of the type that prevails
            (Chowdhery et al. 2022, PaLM, appendix B).
        joules_per_image: of the GPUs.
        shares: of a step's time by cause, the causes of `BOTTLENECKS`; they add up to 1.
        refused: figures left out since they cannot be true (above 100% of a peak), and why.
    """

    steps: int = 0
    step_seconds: float | None = None
    step_spread: float | None = None
    images_per_second: float | None = None
    operations_per_step: float | None = None
    model_operations_per_step: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    joules_per_image: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Change:
    """Something to try.

    Args:
        gain: how many times as fast a step can become at best, as in 1.8; None where nothing tells.
        basis: where the gain comes from: `measured` (a ceiling), `computed` (the whole share of a cause taken
            away) or `estimated` (a part of it, which nothing here tells; a cautious guess).
    """

    what: str
    why: str
    gain: float | None
    basis: str


@dataclass
class Verdict:
    """What bounds a run.

    Args:
        bottleneck: a key of `BOTTLENECKS`.
        confidence: 0 to 1.
        evidence: sentences, the strongest first.
        against: sentences that speak for something else.
        changes: at most three, the largest gain first.
    """

    bottleneck: str
    confidence: float
    evidence: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def to_dict(summary: Summary, verdict: Verdict) -> dict[str, Any]:
    return {"summary": asdict(summary), "verdict": asdict(verdict)}
