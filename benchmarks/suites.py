"""The suites by name. A new one is a module with `contests(device, quick)`, and its line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from imagen_fast.benchmarks.contest import Contest


@dataclass(frozen=True)
class Suite:
    module: str
    what: str

    def contests(self, device: torch.device, quick: bool) -> Iterator[Contest]:
        # Imported when it runs: a list of suites should not wait for all that they measure.
        return importlib.import_module(f"imagen_fast.benchmarks.{self.module}").contests(device, quick)

    def curves(self, device: torch.device, quick: bool) -> Iterator[Contest]:
        """A contest for each point of the suite's curves."""
        curves = importlib.import_module("imagen_fast.benchmarks.curves")
        return curves.contests(self.module, device, quick)


SUITES = {
    "attention": Suite("attention", "masked-patch attention beside PyTorch's and other attention kernels"),
    "decode": Suite(
        "decode", "JPEGs to training-ready tensors, on one CPU thread or a GPU; loaders on all cores"
    ),
    "dropin": Suite(
        "dropin", "training steps of others' models under `accelerate` beside the same as they are"
    ),
    "pixels": Suite("pixels", "pixel cross-entropy, causal attention, training steps of pixel transformers"),
    "sample": Suite("sample", "images drawn from pixel transformers beside transformers' generate"),
    "train": Suite("train", "training steps of masked autoencoders beside transformers' and timm's"),
}
