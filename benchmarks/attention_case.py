"""A case of masked-patch attention: its tensors in the layouts that contenders take, and its exact answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from imagen_fast import ops
from imagen_fast.benchmarks import work
from imagen_fast.benchmarks.correctness import Verdict, bounded
from imagen_fast.benchmarks.peers import sdpa
from imagen_fast.ops import Visible

SEED = 0
FORWARD = "forward"
BOTH = "forward+backward"
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

# Scores that the float64 answer is made of at a time; more images than these show nothing new.
CHECKED_SCORES = 2**24
CHECKED_IMAGES = 8

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
LayoutName = Literal["grid", "packed"]


class Layout(NamedTuple):
    """q, d_out: [B, M, H, D] or packed [T, H, D]; k, v: [B, N, H, D] or packed [T', H, D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor

    def call(self, attention: Attention, measured: str) -> Callable[[], tuple[Tensor, ...]]:
        """What is timed: gives the output, and after a backward the gradients of q, k and v."""
        if measured == FORWARD:

            def forward() -> tuple[Tensor, ...]:
                with torch.no_grad():
                    return (attention(self.q, self.k, self.v),)

            return forward
        leaves = tuple(x.detach().requires_grad_() for x in self[:3])

        def both() -> tuple[Tensor, ...]:
            out = attention(*leaves)
            return out, *torch.autograd.grad(out, leaves, self.d_out)

        return both


@dataclass(frozen=True, eq=False)  # two tensors have no equality
class Case:
    """What is computed, whoever computes it.

    Args:
        use: `dense`, `in-place visible-rows`, `packed`, ...
        images, queries, keys, heads, width: B, M, N, H, D of the full grid.
        seen: [B, N] bool on the CPU, the keys that exist; None where all do.
        asks: which rows of q are asked for, where some keys do not exist.
        ours: the layout that our op takes in this use.
        type: `bf16` or `fp32`.
    """

    use: str
    images: int
    queries: int
    keys: int
    heads: int
    width: int
    type: str
    device: torch.device
    ours: LayoutName = "grid"
    seen: Tensor | None = None
    asks: Literal["all", "visible"] = "all"
    hidden_share: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        return TYPES[self.type]

    @property
    def name(self) -> str:
        """Operation, use, sizes, hidden share, type; the pass is the contest's."""
        tokens = f"N{self.keys}" if self.queries == self.keys else f"M{self.queries} N{self.keys}"
        if self.seen is not None and not self.hidden_share:
            tokens = f"N{self.key_lengths.min()}-{self.key_lengths.max()}"
        hidden = f" hidden{self.hidden_share:.0%}" if self.hidden_share else ""
        sizes = f"B{self.images} {tokens} H{self.heads} D{self.width}"
        return f"attention {self.use} {sizes}{hidden} {self.type}"

    @property
    def asked(self) -> Tensor | None:
        return self.seen if self.asks == "visible" else None

    @property
    def key_lengths(self) -> Tensor:
        return torch.full((self.images,), self.keys) if self.seen is None else self.seen.sum(1)

    @property
    def query_lengths(self) -> Tensor:
        return torch.full((self.images,), self.queries) if self.asked is None else self.asked.sum(1)

    @cached_property
    def grid(self) -> Layout:
        """Every token of every image, hidden and padding ones too; q, k and v are views of a projection."""
        draw = torch.Generator(self.device).manual_seed(SEED)

        def randn(tokens: int, *shape: int) -> Tensor:
            size = (self.images, tokens, *shape, self.width)
            return torch.randn(size, generator=draw, device=self.device, dtype=self.dtype)

        if self.queries == self.keys:
            q, k, v = randn(self.keys, 3, self.heads).unbind(2)
        else:
            q, (k, v) = randn(self.queries, self.heads), randn(self.keys, 2, self.heads).unbind(2)
        d_out = randn(self.queries, self.heads)
        if self.asked is not None:
            d_out *= self.asked.to(self.device)[..., None, None]
        return Layout(q, k, v, d_out)

    @cached_property
    def packed(self) -> Layout:
        """The rows that count, one image after another."""
        q, k, v, d_out = self.grid
        if self.seen is None:
            return Layout(*(x.flatten(0, 1) for x in self.grid))
        seen = self.seen.to(self.device)
        if self.asked is None:
            return Layout(q.flatten(0, 1), *_fused(k[seen], v[seen]), d_out.flatten(0, 1))
        return Layout(*_fused(q[seen], k[seen], v[seen]), d_out[seen])

    def context(self, layout: LayoutName) -> Visible | None:
        """Made once a step and shared by all layers, so nobody's timed call contains it."""
        if layout == "grid":
            return self._grid_context(self.seen)
        queries, keys = self.query_lengths, self.key_lengths
        longest = int(queries.max()), int(keys.max())
        if self.queries == self.keys and self.asked is self.seen:
            return Visible.packed(keys.to(self.device), longest[1])
        return Visible.cross(queries.to(self.device), keys.to(self.device), *longest)

    def _grid_context(self, seen: Tensor | None) -> Visible | None:
        if seen is None:
            return None
        return Visible.in_place(~seen.to(self.device), self.asks, int(seen.sum(1).max()))

    def mask(self) -> Tensor | None:
        """[B, 1, 1, N] bool: what `scaled_dot_product_attention` takes; made once and shared likewise."""
        return None if self.seen is None else self.seen.to(self.device)[:, None, None, :]

    @cached_property
    def _chosen(self) -> Tensor:
        """The images that are checked: the first, the last, and some between."""
        fit = CHECKED_SCORES // (self.heads * self.queries * self.keys)
        count = min(self.images, CHECKED_IMAGES, max(fit, 1))
        return torch.linspace(0, self.images - 1, count).round().long()

    @cached_property
    def _exact(self) -> list[Tensor]:
        return self._answer(self._reference, torch.float64)

    @cached_property
    def _plain(self) -> list[Tensor]:
        """In the case's own type. In float32 that is PyTorch's own kernel, as it is in the tests."""
        return self._answer(self._sdpa if self.dtype == torch.float32 else self._reference, self.dtype)

    def _reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = None if self.seen is None else self.seen[self._chosen]
        return ops.masked_patch_attention(q, k, v, self._grid_context(seen), backend="reference")

    def _sdpa(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = self.mask()
        return sdpa.attention(None if mask is None else mask[self._chosen.to(self.device)])(q, k, v)

    def _answer(self, attention: Attention, dtype: torch.dtype) -> list[Tensor]:
        layout = Layout(*(x[self._chosen.to(self.device)].to(dtype) for x in self.grid))
        answer = layout.call(attention, BOTH)()
        return [self._rows(x.detach(), side, slice(None)) for x, side in zip(answer, _SIDES, strict=True)]

    def _rows(self, x: Tensor, side: str, images: Any) -> Tensor:
        """The rows of the checked images that count, of a result in the layout that it has: [R, H, D]."""
        member = self.asked if side == "asked" else self.seen
        if x.dim() == 4:
            x = x[images]
            return x.flatten(0, 1) if member is None else x[member[self._chosen].to(x.device)]
        lengths = self.query_lengths if side == "asked" else self.key_lengths
        image = torch.arange(self.images).repeat_interleave(lengths)
        return x[torch.isin(image, self._chosen).to(x.device)]

    def verdict(self, answer: Sequence[Tensor]) -> Verdict:
        """The output and the gradients, where there are some, against float64."""
        verdict = Verdict(True)
        for name, side, x, exact, plain in zip(
            _NAMES, _SIDES, answer, self._exact, self._plain, strict=False
        ):
            rows = self._rows(x.detach(), side, self._chosen.to(self.device))
            verdict &= bounded(rows, exact, plain, name)
        return verdict

    def facts(self, measured: str) -> dict[str, Any]:
        """Sizes, and the least that the case asks of memory, matrix units and exponentials."""
        queries, keys = self.query_lengths, self.key_lengths
        pairs = int((queries * keys).sum())
        rows = (self.heads * int(x.sum()) for x in (queries, keys))
        least = work.attention(
            *rows, self.heads * pairs, self.width, self.dtype.itemsize, backward=measured == BOTH
        )
        return {
            "images": self.images,
            "tokens": self.keys,
            "heads": self.heads,
            "width": self.width,
            "hidden_share": self.hidden_share,
            **work.stated(least, self.type),
            "outside_the_call": "contexts and masks, which a step makes once for all layers",
        }


_NAMES = ("out", "d_q", "d_k", "d_v")
_SIDES = ("asked", "asked", "seen", "seen")


def _fused(*tensors: Tensor) -> tuple[Tensor, ...]:
    """[T, H, D] each, as views of one [T, n, H, D], which is what a projection gives."""
    return torch.stack(tensors, 1).unbind(1)
