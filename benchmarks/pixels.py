"""Both likelihoods of pixels and who may see whom, each by itself; and training steps of pixel transformers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imagen_fast.benchmarks import causal_attention, causal_training, likelihood
from imagen_fast.benchmarks.contest import Contest


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    for subject in (likelihood, causal_attention, causal_training):
        yield from subject.contests(device, quick)
