"""The learning rate over the steps of a run."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """Factor of the peak rate at `step` (from 0): linear to 1 over `warmup` steps, then half a cosine.

    Loshchilov & Hutter 2017 (SGDR) without restarts, with the linear warm-up of Goyal et al. 2017.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
