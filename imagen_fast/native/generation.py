"""What is computed a few tokens at a time, while an image is generated: see csrc/cpu/generation.h."""

from __future__ import annotations

from typing import Literal

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
        self._bias = None if bias is None else _copied(bias)
        self._packed = torch.empty(library.cpu().packed_size(self.outputs, self.inputs), dtype=torch.float32)
        wide = weight.detach().float().contiguous()
        library.cpu().pack_weight(
            weight=dense("weight", wide),
            outputs=self.outputs,
            inputs=self.inputs,
            packed=self._packed.data_ptr(),
        )
        self.layer = library.cpu().LinearLayer(
            weight=self._packed.data_ptr(),
            bias=0 if self._bias is None else dense("bias", self._bias, self.outputs),
            inputs=self.inputs,
            outputs=self.outputs,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        if x.shape[-1] != self.inputs:
            raise InvalidInput(f"x must have {self.inputs} values a row, not {x.shape[-1]}")
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], self.outputs, dtype=torch.float32)
        self.layer(
            x=dense("x", x, None, torch.float32),
            rows=x.numel() // max(self.inputs, 1),
            y=y.data_ptr(),
            threads=library.threads(),
        )
        return y


def _copied(x: Tensor) -> Tensor:
    return x.detach().float().contiguous().clone()


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
        self.window = window
        self.shape = (batch, heads, width, blocks)
        padded = -(-width // cpu.PANEL) * cpu.PANEL
        self._keys = torch.zeros(batch, heads, blocks // 2, width, 2, cpu.BLOCK_KEYS, dtype=torch.float32)
        self._values = torch.zeros(batch, heads, blocks, cpu.BLOCK_KEYS, padded, dtype=torch.float32)
        self.cache = cpu.StepCache(
            keys=self._keys.data_ptr(), values=self._values.data_ptr(), shape=self.shape
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, view: StepView) -> Tensor:
        """Keep k and v of the view's pixels; attention of q to what these see.

        q, k, v: [batch, m, heads, width] with a dense last dimension.
        """
        batch, heads, width, _ = self.shape
        wanted = (batch, view.tokens, heads, width)
        for name, x in (("q", q), ("k", k), ("v", v)):
            if tuple(x.shape) != wanted or x.dtype != torch.float32 or x.stride(-1) != 1:
                raise InvalidInput(f"{name} must be float32 {list(wanted)} with a dense last dimension")
        self.check(view)
        out = torch.empty(wanted, dtype=torch.float32)
        self.cache.attend(
            **{name: (x.data_ptr(), *x.stride()[:3]) for name, x in (("q", q), ("k", k), ("v", v))},
            view=view.seen,
            scale=width**-0.5,
            out=out.data_ptr(),
            threads=library.threads(),
        )
        return out

    def check(self, view: StepView) -> None:
        if view.window != self.window:
            raise InvalidInput(f"the view is of {view.window}, the cache of {self.window}")


class StepBlock:
    """A pre-norm transformer block for the tokens of a step: see `ops.generation.PreNormBlock`.

    Weights are copied as they are now.

    Args:
        norm1, norm2: weight [E], bias [E] or None (root mean square), epsilon.
        qkv, proj, fc1, fc2: packed; E -> 3 E, E -> E, E -> F and F -> E.
        cache: of E = heads * width.
    """

    def __init__(
        self,
        *,
        norm1: tuple[Tensor, Tensor | None, float],
        qkv: PackedLinear,
        proj: PackedLinear,
        norm2: tuple[Tensor, Tensor | None, float],
        fc1: PackedLinear,
        fc2: PackedLinear,
        activation: Literal["gelu", "quick_gelu"],
        cache: StepCache,
    ) -> None:
        cpu = library.cpu()
        self._cache = cache
        batch, heads, width, _ = cache.shape
        self._batch, self._dim = batch, heads * width
        hidden = fc1.outputs
        layers = {"qkv": qkv, "proj": proj, "fc1": fc1, "fc2": fc2}
        wanted = {
            "qkv": (self._dim, 3 * self._dim),
            "proj": (self._dim, self._dim),
            "fc1": (self._dim, hidden),
            "fc2": (hidden, self._dim),
        }
        for name, layer in layers.items():
            if (layer.inputs, layer.outputs) != wanted[name]:
                raise InvalidInput(
                    f"{name} must make {wanted[name][1]} values of {wanted[name][0]}, "
                    f"not {layer.outputs} of {layer.inputs}"
                )
        norms = {}
        self._alive: list[object] = list(layers.values())
        for name, (weight, bias, eps) in {"norm1": norm1, "norm2": norm2}.items():
            kept = [None if x is None else _copied(x) for x in (weight, bias)]
            addresses = [0 if x is None else dense(name, x, self._dim) for x in kept]
            norms[name] = cpu.RowNorm(weight=addresses[0], bias=addresses[1], eps=eps)
            self._alive += kept
        self._block = cpu.StepBlock(
            **norms,
            **{name: layer.layer for name, layer in layers.items()},
            activation=getattr(cpu.Activation, activation),
            cache=cache.cache,
        )

    def __call__(self, x: Tensor, view: StepView) -> Tensor:
        """[batch, m, E] of the view's pixels -> as much; x is overwritten. Not for gradients."""
        wanted = (self._batch, view.tokens, self._dim)
        self._cache.check(view)
        if x.requires_grad and torch.is_grad_enabled():
            raise InvalidInput("a step has no gradients: it runs under torch.no_grad()")
        if tuple(x.shape) != wanted:
            raise InvalidInput(f"x must be {list(wanted)}, not {list(x.shape)}")
        self._block(x=dense("x", x, None, torch.float32), view=view.seen, threads=library.threads())
        return x
