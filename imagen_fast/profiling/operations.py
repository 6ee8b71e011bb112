"""Operations and bytes of one call, from what torch.profiler tells of its arguments.

PyTorch's registry of FLOP formulas (`torch.utils.flop_counter`), in which our own operators are too, plus
what it lacks: attention on the CPU, and the shape that a convolution gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import (
    conv_backward_flop,
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

# What an argument is called that is no tensor.
_NO_TENSORS = {"", "Scalar", "ScalarList"}
_BYTES = {
    "double": 8, "long int": 8, "c10::complex<float>": 8, "float": 4, "int": 4, "c10::Half": 2,
    "c10::BFloat16": 2, "short": 2, "unsigned char": 1, "signed char": 1, "bool": 1,
}  # fmt: skip
_TYPES = {"float": "float32", "double": "float64", "c10::Half": "float16", "c10::BFloat16": "bfloat16"}
# Of what is large enough to take time: below, a call costs what it takes to hand it out.
_SMALL_BYTES, _SMALL_OPERATIONS = 32 * 1024, 100_000
# Look at memory in another way, or ask for some; nothing is read or written.
_MOVE_NOTHING = {
    "alias", "as_strided", "as_strided_", "chunk", "detach", "detach_", "empty", "empty_like",
    "empty_strided", "expand", "expand_as", "flatten", "item", "lift_fresh", "movedim", "narrow",
    "new_empty", "new_empty_strided", "numpy_T", "permute", "resize_", "reshape", "resolve_conj",
    "resolve_neg",
    "result_type", "select", "slice", "split", "split_with_sizes", "squeeze", "squeeze_", "t",
    "transpose", "transpose_", "unbind", "unflatten", "unfold", "unsqueeze", "unsqueeze_", "view",
    "view_as", "_local_scalar_dense", "_reshape_alias", "_unsafe_view",
}  # fmt: skip
# Give few numbers of many.
_REDUCTIONS = {
    "sum",
    "mean",
    "norm",
    "linalg_vector_norm",
    "amax",
    "argmax",
    "all",
    "any",
}


class Call:
    """A call by its name (`aten::mm`), and of its arguments shapes, types and values, as it was recorded."""

    def __init__(self, name: str, shapes: Sequence[Any], types: Sequence[str], values: Sequence[Any]) -> None:
        self.name = name
        self._shapes, self._types, self._values = shapes, types, values

    @property
    def arguments(self) -> tuple[Sequence[Any], Sequence[str], Sequence[Any]]:
        """Their shapes, types and values."""
        return self._shapes, self._types, self._values

    @cached_property
    def operations(self) -> float | None:
        """Carried out, two for a multiplication with an addition; None where there is no formula."""
        formula = _formula(self.name)
        if formula is None:
            return None
        try:
            arguments = [
                value if kind in _NO_TENSORS else shape
                for shape, kind, value in zip(self._shapes, self._types, self._values, strict=True)
            ]
            return float(formula(*arguments))
        except Exception:  # an overload that the formula does not know
            return None

    def again(self, operations: float) -> float:
        """Of these, those that a backward pass makes a second time: the scores of attention.

        Gradients take twice the products of the forward pass, and kernels that keep no probabilities five
        for two.
        """
        name = self.name.lower()
        return operations / 5 if "attention" in name and "backward" in name else 0.0

    @cached_property
    def bytes(self) -> float | None:
        """Of inputs once, and of an output as large as the largest; None where nothing is moved."""
        base = self.name.partition("::")[2]
        if base in _MOVE_NOTHING:
            return None
        sizes = list(self._sizes())
        if not sizes:
            return None
        written = 0 if base in _REDUCTIONS or base.endswith("_") else max(sizes)
        if base in ("mm", "bmm"):
            (first, second), size = self._shapes[:2], _BYTES.get(self._types[0], 4)
            written = prod(first[:-1]) * second[-1] * size
        elif base == "addmm":
            written = self._shapes[1][0] * self._shapes[2][1] * _BYTES.get(self._types[1], 4)
        return float(sum(sizes) + written)

    def _sizes(self) -> Iterator[int]:
        for shape, kind in zip(self._shapes, self._types, strict=False):
            if kind in _NO_TENSORS or not shape:
                continue
            # Of tensors in a list the type is not told.
            each = shape if kind == "TensorList" else [shape]
            yield sum(prod(one) for one in each) * _BYTES.get(kind, 4)

    @property
    def small(self) -> bool:
        """Whether it is known to take less time than handing it out."""
        if self.name.partition("::")[2] in _MOVE_NOTHING:
            return True
        return (
            self.bytes is not None
            and self.bytes <= _SMALL_BYTES
            and (self.operations or 0.0) <= _SMALL_OPERATIONS
        )

    @property
    def dtype(self) -> str | None:
        """Of the first tensor of floating point."""
        return next((_TYPES[kind] for kind in self._types if kind in _TYPES), None)


@cache
def _formula(name: str) -> Callable[..., Any] | None:
    if name in _OWN:
        return _OWN[name]
    space, _, base = name.partition("::")
    packet = getattr(getattr(torch.ops, space, None), base, None) if base else None
    try:
        return flop_registry.get(packet)
    except TypeError:
        return None


def _convolution(x, weight, bias, stride, padding, dilation, transposed, *_: Any) -> float:
    if transposed:
        return conv_flop_count(x, weight, [], transposed=True)
    spatial = [
        (size + 2 * pad - spread * (side - 1) - 1) // step + 1
        for size, side, step, pad, spread in zip(
            x[2:], weight[2:], _each(stride, x), _each(padding, x), _each(dilation, x), strict=True
        )
    ]
    return conv_flop_count(x, weight, [x[0], weight[0], *spatial])


def _each(values: Any, x: Sequence[int]) -> list[int]:
    values = values if isinstance(values, list) else [values]
    return values * (len(x) - 2) if len(values) == 1 else values


def _convolution_backward(grad, x, weight, *rest: Any) -> float:
    return conv_backward_flop(grad, x, weight, *rest, out_val=(x, weight, weight[:1]))


_OWN: dict[str, Callable[..., Any]] = {
    "aten::convolution": _convolution,
    "aten::convolution_backward": _convolution_backward,
    "aten::_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: sdpa_flop_count(q, k, v),
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": (
        lambda grad, q, k, v, *_: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
