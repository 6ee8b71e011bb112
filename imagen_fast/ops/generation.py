"""What a transformer computes a few tokens at a time, while an image is generated.

Like `layer_norm` details of a model, not operations. On the CPU in float32 each value is made of its own row
alone, bit by bit, whatever else is in the batch; elsewhere PyTorch's products serve, which may round
differently in another batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from imagen_fast.ops.contexts import Window
from imagen_fast.ops.cpu import generation as cpu


class Cache(Protocol):
    """Keys and values of the tokens so far."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: Any) -> Tensor:
        """Keep k and v [B, m, H, D] of a step; attention of q to what the `view` of it sees: [B, m, H, D].

        `view` is one of `step_views` for such a cache.
        """
        ...


def few_rows_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x weight^T + bias of [..., in], with what can be done once for these weights done once."""
    if cpu.serves(weight):
        return cpu.PackedLinear(weight, bias)
    return lambda x: torch.nn.functional.linear(x, weight, bias)


def step_views(like: Tensor, window: Window, steps: list[Tensor]) -> Sequence[Any]:
    """What the tokens of each step see of those before and of each other, for caches in the type of `like`.

    Args:
        steps: the raster numbers of the tokens of each; all they see must be theirs or an earlier one's.
    """
    if cpu.serves(like):
        return [cpu.StepView(window, places) for places in steps]
    return list(_slices(window, steps, like.device))


def cache_like(x: Tensor, batch: int, window: Window, heads: int, width: int) -> Cache:
    """An empty cache in the type of `x`, where it is."""
    if cpu.serves(x):
        return cpu.StepCache(batch, window, heads, width)
    return _TorchCache(x, (batch, window.height * window.width, heads, width))


class _Slice(NamedTuple):
    """A step fills the slots `first` to `last` of a cache, and sees those from `low` to `last`.

    `mask` [last - first, last - low] says which of them each of its tokens sees; None: all.
    """

    first: int
    last: int
    low: int
    mask: Tensor | None


def _slices(window: Window, steps: list[Tensor], device: torch.device) -> Iterator[_Slice]:
    """Slots are filled in the order of the steps, so that what a step sees is one slice."""
    order = torch.cat(steps).to(torch.int32)
    first = 0
    for step in steps:
        last, low, mask = first + len(step), 0, None
        if len(step) > 1 or not window.all_before:
            mask = window.sees(order[first:last], order[:last])
            low = int(mask.any(0).int().argmax())
            mask = None if bool(mask[:, low:].all()) else mask[:, low:].contiguous().to(device)
        yield _Slice(first, last, low, mask)
        first = last


class _TorchCache:
    def __init__(self, like: Tensor, shape: tuple[int, int, int, int]) -> None:
        self._keys, self._values = like.new_zeros(shape), like.new_zeros(shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: _Slice) -> Tensor:
        first, last, low, mask = view
        self._keys[:, first:last] = k
        self._values[:, first:last] = v
        q, k, v = (x.transpose(1, 2) for x in (q, self._keys[:, low:last], self._values[:, low:last]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
