"""What an operation could do at most: the roofline (Williams, Waterman, Patterson 2009)."""

from __future__ import annotations

from typing import NamedTuple

from imagen_fast.profiling.recording import Op, Peaks

# How each kind of operation is called where people read it.
KINDS = {
    "matrix": "matrix products",
    "memory": "elementwise, reductions and the like",
    "copy": "copies",
    "communication": "communication",
    "optimizer": "optimizer",
}


class Reached(NamedTuple):
    """A share of a peak; more than 1 cannot be true.

    Args:
        of: `memory`, or a type such as `bfloat16`.
    """

    share: float
    of: str


def reached(op: Op, peaks: Peaks | None) -> Reached | None:
    """How near an operation comes to the roof above it; None where that roof or the work is not known."""
    if peaks is None or op.seconds <= 0:
        return None
    arithmetic = peaks.operations.get(op.dtype or "")
    least = []
    if op.bytes and peaks.bandwidth:
        least.append((op.bytes / peaks.bandwidth, "memory"))
    if op.operations and arithmetic:
        least.append((op.operations / arithmetic, op.dtype or ""))
    # With operations but without their peak, memory may be the farther roof of the two: nothing can be said.
    if not least or (op.operations and not arithmetic):
        return None
    seconds, of = max(least)
    return Reached(seconds / op.seconds, of)


def placed(ops: list[Op]) -> list[tuple[Op, float, float]]:
    """Operations whose work is known, the longest first, with operations per byte and operations a second."""
    known = [
        (op, op.operations / op.bytes, op.operations / op.seconds)
        for op in ops
        if op.operations and op.bytes and op.seconds > 0
    ]
    return sorted(known, key=lambda point: -point[0].seconds)


def short_name(name: str, most: int = 30) -> str:
    """An operation's name without PyTorch's namespace; the middle of a long one left out."""
    name = name.removeprefix("aten::")
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
