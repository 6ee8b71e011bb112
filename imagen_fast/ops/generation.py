"""What a transformer computes a few tokens at a time, while an image is generated.

Like `layer_norm` details of a model, not operations. On the CPU in float32 each value is made of its own row
alone, bit by bit, whatever else is in the batch; elsewhere PyTorch's products serve, which may round
differently in another batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from imagen_fast.ops.cpu import generation as cpu


class View(NamedTuple):
    """A step fills the slots `first` to `last` of a cache, and sees those from `low` to `last`.

    `mask` [last - first, last - low] says which of them each of its tokens sees; None: all.
    """

    first: int
    last: int
    low: int
    mask: Tensor | None

    def to(self, device: torch.device) -> View:
        return self._replace(mask=None if self.mask is None else self.mask.to(device))


class Cache(Protocol):
    """Keys and values of the tokens so far, in the order of their generation."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """Keep k and v [B, m, H, D] in the view's slots; attention of q to what it sees: [B, m, H, D]."""
        ...


def few_rows_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x weight^T + bias of [..., in], with what can be done once for these weights done once."""
    if cpu.serves(weight):
        return cpu.PackedLinear(weight, bias)
    return lambda x: torch.nn.functional.linear(x, weight, bias)


def cache_like(x: Tensor, batch: int, slots: int, heads: int, width: int) -> Cache:
    """An empty cache in the type of `x`, where it is."""
    if cpu.serves(x):
        return _Native(batch, slots, heads, width)
    return _Torch(x, (batch, slots, heads, width))


class _Native:
    def __init__(self, batch: int, slots: int, heads: int, width: int) -> None:
        self._cache = cpu.StepCache(batch, slots, heads, width)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        return self._cache.attend(q, k, v, *view)


class _Torch:
    def __init__(self, like: Tensor, shape: tuple[int, int, int, int]) -> None:
        self._keys, self._values = like.new_zeros(shape), like.new_zeros(shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        first, last, low, mask = view
        self._keys[:, first:last] = k
        self._values[:, first:last] = v
        q, k, v = (x.transpose(1, 2) for x in (q, self._keys[:, low:last], self._values[:, low:last]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
