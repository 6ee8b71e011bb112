"""What a transformer computes a few tokens at a time, while an image is generated.

Like `layer_norm` details of a model, not operations. On the CPU in float32 each value is made of its own row
alone, bit by bit, whatever else is in the batch; elsewhere PyTorch's products serve, which may round
differently in another batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from imagen_fast.errors import InvalidInput
from imagen_fast.ops.contexts import Window
from imagen_fast.ops.cpu import generation as cpu
from imagen_fast.ops.gelu import quick_gelu
from imagen_fast.ops.layer_norm import layer_norm
from imagen_fast.ops.rms_norm import rms_norm

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "quick_gelu": quick_gelu}


class Norm(NamedTuple):
    """Layer normalisation over the last dimension; without a bias, root-mean-square normalisation."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return rms_norm(x, self.weight, self.eps)
        return layer_norm(x, self.weight, self.bias, self.eps)


class Layer(NamedTuple):
    """A linear layer: weight [out, in] and bias [out]."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class PreNormBlock:
    """The weights of a transformer block, in the order in which they are used.

    y = x + proj(attention(qkv(norm1(x)))), then y + fc2(activation(fc1(norm2(y)))).
    """

    norm1: Norm
    qkv: Layer
    proj: Layer
    norm2: Norm
    fc1: Layer
    fc2: Layer
    heads: int
    activation: Literal["gelu", "quick_gelu"]

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            raise InvalidInput(f"activation must be one of {list(_ACTIVATIONS)}, not {self.activation!r}")
        dim = len(self.proj.weight)
        if dim % self.heads:
            raise InvalidInput(f"{self.heads} heads do not divide a width of {dim}")


def few_rows_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x weight^T + bias of [..., in], with what can be done once for these weights done once."""
    if cpu.serves(weight):
        return cpu.PackedLinear(weight, bias)
    return lambda x: linear(x, weight, bias)


def step_views(like: Tensor, window: Window, steps: list[Tensor]) -> Sequence[Any]:
    """What the tokens of each step see of those before and of each other, for weights such as `like`.

    Args:
        steps: the raster numbers of the tokens of each; all they see must be theirs or an earlier one's.
    """
    if cpu.serves(like):
        return [cpu.StepView(window, places) for places in steps]
    return list(_slices(window, steps, like.device))


def step_block(block: PreNormBlock, batch: int, window: Window) -> Callable[[Tensor, Any], Tensor]:
    """A block for the tokens of a step [B, m, E], which remembers the keys and values of earlier ones.

    It is called, under `torch.no_grad()`, with the tokens, which it may overwrite, and one of `step_views`.
    """
    if not cpu.serves(block.qkv.weight):
        return _TorchBlock(block, batch, window)
    return cpu.StepBlock(
        **{name: cpu.PackedLinear(*getattr(block, name)) for name in ("qkv", "proj", "fc1", "fc2")},
        norm1=block.norm1,
        norm2=block.norm2,
        activation=block.activation,
        cache=cpu.StepCache(batch, window, block.heads, len(block.proj.weight) // block.heads),
    )


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


class _TorchBlock:
    def __init__(self, block: PreNormBlock, batch: int, window: Window) -> None:
        self._block = block
        weight = block.proj.weight
        shape = (batch, window.height * window.width, block.heads, len(weight) // block.heads)
        self._keys, self._values = weight.new_zeros(shape), weight.new_zeros(shape)

    def __call__(self, x: Tensor, view: _Slice) -> Tensor:
        block = self._block
        q, k, v = linear(block.norm1(x), *block.qkv).unflatten(-1, (3, block.heads, -1)).unbind(-3)
        x = x + linear(self._attend(q, k, v, view).flatten(-2), *block.proj)
        return x + linear(_ACTIVATIONS[block.activation](linear(block.norm2(x), *block.fc1)), *block.fc2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, view: _Slice) -> Tensor:
        first, last, low, mask = view
        self._keys[:, first:last] = k
        self._values[:, first:last] = v
        q, k, v = (x.transpose(1, 2) for x in (q, self._keys[:, low:last], self._values[:, low:last]))
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
