"""How many of 255 levels normalised pixels differ from those of Pillow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.data.sources import IMAGENET_STD

# From Pillow's antialiased resize: what ours promises, and what others may lack at most to count as the same
# work.
SAME = {"mean": 0.05, "maximum": 2.0}
OTHER = {"mean": 3.0, "maximum": 255.0}


def levels_apart(made: Tensor, wanted: Tensor, bound: dict[str, float]) -> Verdict:
    """Of [B, 3, H, W], both normalised by ImageNet's statistics."""
    levels = 255 * torch.tensor(IMAGENET_STD)[:, None, None]
    difference = ((made - wanted) * levels).abs()
    found = {"mean": float(difference.mean()), "maximum": float(difference.max())}
    evidence: dict[str, Any] = {
        f"levels from Pillow, {kind}": {"error": found[kind], "bound": bound[kind]} for kind in found
    }
    # A NaN is within no bound; a level is not a whole one after normalising.
    return Verdict(all(found[kind] <= bound[kind] + 1e-3 for kind in found), evidence)
