"""A case of attention among pixels in generation order: its tensors, and its exact answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from imagen_fast import ops
from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.attention_case import (
    BOTH,
    CHECKED_IMAGES,
    CHECKED_SCORES,
    SEED,
    TYPES,
    Attention,
    Layout,
)
from imagen_fast.benchmarks.correctness import HALF, SAME, Verdict, bounded, distance
from imagen_fast.benchmarks.peers import sdpa
from imagen_fast.ops import CausalContext, Neighbourhood
from imagen_fast.ops.contexts import Window

_NAMES = ("out", "d_q", "d_k", "d_v")


@dataclass(frozen=True)
class Case:
    """What is computed, whoever computes it.

    Args:
        images, heads, width: B, H, D.
        type: `bf16` or `fp32`.
    """

    context: CausalContext
    grid: tuple[int, int]
    images: int
    heads: int
    width: int
    type: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return TYPES[self.type]

    @property
    def name(self) -> str:
        kind = type(self.context).__name__.lower()
        radius = str(self.context.radius) if isinstance(self.context, Neighbourhood) else ""
        sizes = f"{self.grid[0]}x{self.grid[1]} B{self.images} H{self.heads} D{self.width}"
        return f"causal attention {kind}{radius} {sizes} {self.type}"

    @property
    def window(self) -> Window:
        return self.context.window(self.grid)

    @cached_property
    def mask(self) -> Tensor:
        """[N, N] bool; made once and shared by all layers, so nobody's timed call contains it."""
        return self.window.visible(self.device)

    @cached_property
    def layout(self) -> Layout:
        """q, k and v are views of a projection."""
        draw = torch.Generator(self.device).manual_seed(SEED)

        def randn(*shape: int) -> Tensor:
            size = (self.images, self.grid[0] * self.grid[1], *shape, self.heads, self.width)
            return torch.randn(size, generator=draw, device=self.device, dtype=self.dtype)

        return Layout(*randn(3).unbind(2), randn())

    def ours(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ops.causal_pixel_attention(q, k, v, self.grid, self.context)

    def _reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ops.causal_pixel_attention(q, k, v, self.grid, self.context, backend="reference")

    @cached_property
    def _chosen(self) -> Tensor:
        """The images that are checked: the first, the last, and some between."""
        fit = CHECKED_SCORES // (self.heads * self.mask.numel())
        count = min(self.images, CHECKED_IMAGES, max(fit, 1))
        return torch.linspace(0, self.images - 1, count, device=self.device).round().long()

    @cached_property
    def _exact(self) -> list[Tensor]:
        return self._answer(self._reference, torch.float64)

    @cached_property
    def _plain(self) -> list[Tensor]:
        """In the case's own type. In float32 that is PyTorch's own kernel, as it is in the tests."""
        plain = sdpa.attention(self.mask) if self.dtype == torch.float32 else self._reference
        return self._answer(plain, self.dtype)

    def _answer(self, attention: Attention, dtype: torch.dtype) -> list[Tensor]:
        layout = Layout(*(x[self._chosen].to(dtype) for x in self.layout))
        return [x.detach() for x in layout.call(attention, BOTH)()]

    def bound(self, answer: Sequence[Tensor]) -> Verdict:
        """Ours: the output and the gradients, where there are some, as near to float64 as plain PyTorch's."""
        verdict = Verdict(True)
        for name, x, exact, plain in zip(_NAMES, answer, self._exact, self._plain, strict=False):
            verdict &= bounded(x.detach()[self._chosen], exact, plain, name)
        return verdict

    def plausible(self, answer: Sequence[Tensor]) -> Verdict:
        """A peer: in float32 equal but for the order of sums, in bf16 off by what that may cost at all.

        PyTorch's own kernel in bf16 would not stay within the bound of ours: over 4096 pixels d_v has errors
        twice as large as those of two plain products.
        """
        limit = (SAME if self.dtype == torch.float32 else HALF).gradient
        verdict = Verdict(True)
        for name, x, exact in zip(_NAMES, answer, self._exact, strict=False):
            error = distance(x.detach()[self._chosen], exact)
            verdict &= Verdict(error <= limit, {name: {"error": error, "bound": limit}})
        return verdict

    def facts(self, measured: str) -> dict[str, Any]:
        """Sizes, and the least that the case asks of memory, matrix units and exponentials."""
        seen = int(self.mask.sum())
        heads = self.images * self.heads
        rows = heads * len(self.mask)
        least = work.attention(
            rows, rows, heads * seen, self.width, self.dtype.itemsize, backward=measured == BOTH
        )
        return {
            "images": self.images,
            "grid": f"{self.grid[0]}x{self.grid[1]}",
            "heads": self.heads,
            "width": self.width,
            "seen_share": seen / self.mask.numel(),
            **work.stated(least, self.type),
            "outside_the_call": "masks, which a step makes once for all layers",
        }
