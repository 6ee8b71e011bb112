"""Contenders that are training steps: another's model in its modes, and ours held against it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from imagen_fast import native
from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.correctness import HALF, SAME, Answer, Verdict, errors, half_bound, within
from imagen_fast.benchmarks.measure import Call
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.kernels.cost import Work

# What is left out, of ours and of theirs, where nothing is compiled.
COMPILED = "torch.compile"


@dataclass(frozen=True)
class Mode:
    """One way to train another's model.

    Args:
        keeps_memory: its process keeps what memory it frees, as our trainer's does.
    """

    dtype: torch.dtype
    compiled: bool = False
    keeps_memory: bool = False

    @property
    def precision(self) -> str:
        return "fp32" if self.dtype == torch.float32 else "bf16"

    @property
    def name(self) -> str:
        name = f"{self.precision} compiled" if self.compiled else self.precision
        return name + (", memory kept" if self.keeps_memory else "")

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "precision": "fp32" if self.precision == "fp32" else "bf16 autocast on fp32 weights",
            # What transformers' Trainer takes by default since PyTorch 2.8, and PyTorch's fastest.
            "optimizer": "torch.optim.AdamW(fused=True)",
            "compiled": self.compiled,
            "keeps_freed_memory": self.keeps_memory,
        }


class Plain:
    """The plain implementation that ours is held against, in both types.

    Args:
        checked: images of the batch that the answers are compared on.
    """

    def __init__(self, checked: int) -> None:
        self.checked = checked

    def step(self, dtype: torch.dtype) -> TrainingStep:
        raise NotImplementedError

    @cached_property
    def exact(self) -> Answer:
        return self.step(torch.float32).answer(self.checked)

    @cached_property
    def half(self) -> Answer:
        return self.step(torch.bfloat16).answer(self.checked)


class Theirs(Plain):
    """Another's model of the same objective: a peer, and what ours must equal.

    Args:
        peer: whose it is.
    """

    facts: dict[str, Any]
    work: Work
    model: Any  # with its first weights

    def __init__(self, peer: str, checked: int) -> None:
        super().__init__(checked)
        self.peer = peer

    def train(self, model: Any, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        """A step of `model`, which is one of theirs."""
        raise NotImplementedError

    def step(self, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        return self.train(copy.deepcopy(self.model), dtype, compiled)

    @property
    def mathematics(self) -> Verdict:
        """Whether it computes in float32 what the others do."""
        return Verdict(True)

    def contender(self, case: str, mode: Mode) -> Contender:
        def build() -> TrainingStep:
            if mode.keeps_memory:
                native.keep_freed_memory()
            return self.step(mode.dtype, mode.compiled)

        def prepare() -> tuple[Call, Verdict]:
            step = build()
            answer = step.answer(self.checked)
            if mode.dtype == torch.float32:  # what all others are held against
                return step, Verdict(math.isfinite(answer.loss), {"loss": answer.loss})
            return step, self.mathematics & within(errors(answer, self.exact), HALF, "its own fp32")

        facts = self.facts | mode.facts | work.stated(self.work, mode.precision)
        return Contender(case, f"{self.peer} {mode.name}", prepare, facts, build)


class Ours:
    """One objective of ours.

    Args:
        plain: what it must equal in float32, and be as near to in bf16 as that is itself.
    """

    facts: dict[str, Any]
    work: Work

    def __init__(self, plain: Plain, device: torch.device) -> None:
        self.plain, self.device = plain, device

    def step(self, dtype: torch.dtype, compiled: bool = False) -> TrainingStep:
        raise NotImplementedError

    @cached_property
    def mathematics(self) -> Verdict:
        """In float32 the loss and the gradients are the plain implementation's."""
        return self.same(self.step(torch.float32))

    def same(self, step: TrainingStep) -> Verdict:
        found = errors(step.answer(self.plain.checked), self.plain.exact)
        return within(found, SAME, "fp32 beside plain fp32")

    def near(self, step: TrainingStep) -> Verdict:
        """In bf16 the loss and the gradients err no more than the plain implementation's."""
        found = errors(step.answer(self.plain.checked), self.plain.exact)
        plain = errors(self.plain.half, self.plain.exact)
        known = Verdict(True, {"plain bf16 beside plain fp32": plain._asdict()})
        return known & within(found, half_bound(plain), "bf16 beside plain fp32")

    def contender(self, case: str, dtype: torch.dtype, compiled: bool = False) -> Contender:
        half = dtype == torch.bfloat16
        keeps_memory = self.device.type == "cpu"

        def build() -> TrainingStep:
            if keeps_memory:
                native.keep_freed_memory()  # as our training loop does
            return self.step(dtype, compiled)

        def prepare() -> tuple[Call, Verdict]:
            step = build()
            return step, self.mathematics & self.near(step) if half else self.same(step)

        facts = {
            "precision": "bf16 weights with fp32 masters" if half else "fp32",
            "optimizer": "imagen_fast.train.MasterAdamW",
            "compiled": compiled,
            "keeps_freed_memory": keeps_memory,
        }
        facts |= self.facts | work.stated(self.work, "bf16" if half else "fp32")
        return Contender(case, OURS, prepare, facts, build)
