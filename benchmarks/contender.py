"""One implementation of a case: its names, and how it is built and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call

OURS = "imagen_fast"


@dataclass(frozen=True)
class Contender:
    """One implementation of a case.

    Args:
        case: operation, use, sizes, hidden share, type and pass, as in `mae small same-objective bf16 step`.
        implementation: `OURS`, or the peer and its mode.
        prepare: builds what is timed and checks it; nothing is built before. Refused, of a peer that does
            not take the case.
        facts: workload and settings, for the record.
        build: builds what is timed, and sets up the process where that matters; for contests whose
            contenders live apart.
        later_facts: more of them, that take as long to find as what is prepared; asked for after it.
        told: evidence that what is timed gives of itself, once it is built.
    """

    case: str
    implementation: str
    prepare: Callable[[], tuple[Call, Verdict]]
    facts: dict[str, Any] = field(default_factory=dict)
    build: Callable[[], Call] | None = None
    later_facts: Callable[[], dict[str, Any]] = dict
    told: Callable[[Call], dict[str, Any]] = lambda call: {}
