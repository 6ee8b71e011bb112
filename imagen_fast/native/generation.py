"""Linear layers for few rows, and attention to what is kept of earlier tokens: see csrc/cpu/generation.h."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native import library
from imagen_fast.native.causal_attention import WindowNumbers
from imagen_fast.native.tensors import dense


class PackedLinear:
    """x weight^T + bias of float32 rows; each row's result depends on that row alone, bit by bit.

    weight [out, in] and bias [out] are copied as they are now.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        self._bias = None if bias is None else bias.detach().float().contiguous().clone()
        self._packed = torch.empty(library.cpu().packed_size(self.outputs, self.inputs), dtype=torch.float32)
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
        y = torch.empty(*x.shape[:-1], self.outputs, dtype=torch.float32)
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


class StepView:
    """The pixels of a grid that are computed in one step, and what each sees of the window.

    places [m]: their raster numbers. Whatever they see must be in a cache, or come in this step.
    """

    def __init__(self, window: WindowNumbers, places: Tensor) -> None:
        numbers, pixels = places.tolist(), window[0] * window[1]
        if not all(0 <= number < pixels for number in numbers):
            raise InvalidInput(f"places must be 0 to {pixels - 1}")
        self.window, self.tokens = window, len(numbers)
        self.seen = library.cpu().StepView(window=window, places=numbers)


class StepCache:
    """Keys and values of a batch of grids, which are filled step by step; float32."""

    def __init__(self, batch: int, window: WindowNumbers, heads: int, width: int) -> None:
        cpu = library.cpu()
        blocks = cpu.cache_blocks(window)
        self._window = window
        self._shape = (batch, heads, width, blocks)
        padded = -(-width // cpu.PANEL) * cpu.PANEL
        self._keys = torch.zeros(batch, heads, blocks, width, cpu.BLOCK_KEYS, dtype=torch.float32)
        self._values = torch.zeros(batch, heads, blocks, cpu.BLOCK_KEYS, padded, dtype=torch.float32)
        self._cache = cpu.StepCache(
            keys=self._keys.data_ptr(), values=self._values.data_ptr(), shape=self._shape
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: StepView) -> Tensor:
        """Keep k and v of the view's pixels; attention of q to what these see.

        q, k, v: [batch, m, heads, width] with a dense last dimension.
        """
        batch, heads, width, _ = self._shape
        wanted = (batch, view.tokens, heads, width)
        for name, x in (("q", q), ("k", k), ("v", v)):
            if tuple(x.shape) != wanted or x.dtype != torch.float32 or x.stride(-1) != 1:
                raise InvalidInput(f"{name} must be float32 {list(wanted)} with a dense last dimension")
        if view.window != self._window:
            raise InvalidInput(f"the view is of {view.window}, the cache of {self._window}")
        out = torch.empty(wanted, dtype=torch.float32)
        self._cache.attend(
            **{name: (x.data_ptr(), *x.stride()[:3]) for name, x in (("q", q), ("k", k), ("v", v))},
            view=view.seen,
            scale=width**-0.5,
            out=out.data_ptr(),
            threads=library.threads(),
        )
        return out
