"""What predicts pixels: their cross-entropy, attention in generation order, training steps of models."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imagen_fast.benchmarks import causal_attention, causal_training, likelihood
from imagen_fast.benchmarks.contest import Contest


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    for subject in (likelihood, causal_attention, causal_training):
        yield from subject.contests(device, quick)
