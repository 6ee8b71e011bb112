"""Linear layers for few rows, and attention to what is kept of earlier tokens: see csrc/cpu/generation.h."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native import library
from imagen_fast.native.tensors import dense


class PackedLinear:
    """x weight^T + bias of float32 rows; each row's result depends on that row alone, bit by bit.

    weight [out, in] and bias [out] are copied as they are now.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        self._bias = None if bias is None else bias.detach().float().contiguous().clone()
        self._packed = torch.empty(library.cpu().packed_size(self.outputs, self.inputs))
        wide = weight.detach().float().contiguous()
        library.cpu().pack_weight(
            weight=dense("weight", wide),
            outputs=self.outputs,
            inputs=self.inputs,
            packed=self._packed.data_ptr(),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        if x.shape[-1] != self.inputs:
            raise InvalidInput(f"x must have {self.inputs} values a row, not {x.shape[-1]}")
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], self.outputs)
        library.cpu().packed_linear(
            x=dense("x", x, None, torch.float32),
            weight=self._packed.data_ptr(),
            bias=0 if self._bias is None else self._bias.data_ptr(),
            rows=x.numel() // max(self.inputs, 1),
            inputs=self.inputs,
            outputs=self.outputs,
            y=y.data_ptr(),
            threads=library.threads(),
        )
        return y


class StepCache:
    """Keys and values of a batch in slots that are filled step by step; float32."""

    def __init__(self, batch: int, slots: int, heads: int, width: int) -> None:
        panel = library.cpu().PANEL
        self._shape = (batch, heads, width, slots + panel)
        self._slots = slots
        self._keys = torch.zeros(self._shape)
        self._values = torch.zeros(batch, heads, slots + panel, -(-width // panel) * panel)
        self._cache = library.cpu().StepCache(
            keys=self._keys.data_ptr(), values=self._values.data_ptr(), shape=self._shape
        )

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, first: int, last: int, low: int, mask: Tensor | None
    ) -> Tensor:
        """Fill the slots first..last with k and v; attention of q to the slots low..last.

        q, k, v: [batch, last - first, heads, width] with a dense last dimension.
        mask: [last - first, last - low] bool, contiguous, which slots each token sees; None: all. Each must
            see one.
        """
        batch, heads, width, _ = self._shape
        wanted = (batch, last - first, heads, width)
        for name, x in (("q", q), ("k", k), ("v", v)):
            if tuple(x.shape) != wanted or x.dtype != torch.float32 or x.stride(-1) != 1:
                raise InvalidInput(f"{name} must be float32 {list(wanted)} with a dense last dimension")
        if not 0 <= low <= first <= last <= self._slots:
            raise InvalidInput(f"slots {low} to {first} to {last} are none of {self._slots}")
        out = torch.empty(wanted)
        self._cache.attend(
            **{name: (x.data_ptr(), *x.stride()[:3]) for name, x in (("q", q), ("k", k), ("v", v))},
            slots=(first, last, low),
            mask=0 if mask is None else dense("mask", mask, (last - first) * (last - low), torch.bool),
            scale=width**-0.5,
            out=out.data_ptr(),
            threads=library.threads(),
        )
        return out
