"""The likelihoods of pixels, with projection and gradients in one: see csrc/cpu/pixel_likelihood.h."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native import library
from imagen_fast.native.tensors import dense, dtype_number, on_cpu

# As csrc/cpu/pixel_likelihood.h numbers them.
_INTEGERS = {torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4}


@dataclass(frozen=True)
class Likelihood:
    """What a pass over the rows gives; the tensors are those that were asked for, otherwise empty."""

    total: Tensor  # of the losses, times the factor; float32 scalar
    d_hidden: Tensor  # [G, M, E], of the type of hidden
    d_weight: Tensor  # [V, E] float32
    d_bias: Tensor  # [V] float32


@dataclass(frozen=True)
class PixelLikelihood:
    """Rows of hidden [G, M, E] that predict targets [G, M], and what is made of their projections.

    hidden, weight [V, E] and bias [V] are float32 or bfloat16, hidden of any strides with a dense last
    dimension. A row counts where `keep` is true (or is None) and its target is not `ignore_index`; others
    are not read, and give zeros.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    keep: Tensor | None
    ignore_index: int
    levels: int
    _run: Callable[..., float]

    def total(self, factor: float, gradients: bool) -> Likelihood:
        """`factor` times the sum of the losses, with its gradients where asked."""
        if not gradients:
            return Likelihood(_scalar(self._call() * factor), *(self.hidden.new_empty(0) for _ in range(3)))
        made = self._gradients()
        return Likelihood(_scalar(self._call(factor, *made) * factor), *made)

    def losses(self, log_z: Tensor | None = None) -> Tensor:
        """Each row's loss, float32 [G, M]; `log_z` gets what the backward of the cross-entropy needs."""
        losses = torch.empty(self.target.shape, dtype=torch.float32)
        self._call(losses=losses, log_z=log_z)
        return losses

    def backward(self, d_losses: Tensor, log_z: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of hidden, weight and bias from those of the rows' losses."""
        made = self._gradients()
        self._call(1.0, *made, d_losses=d_losses.to(torch.float32).contiguous(), log_z=log_z)
        return made

    def _gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        outputs, width = self.weight.shape
        make = torch.empty if self.hidden.numel() else torch.zeros  # an empty tensor has no address
        return (
            torch.empty(self.hidden.shape, dtype=self.hidden.dtype),
            make(outputs, width, dtype=torch.float32),
            make(0 if self.bias is None else outputs, dtype=torch.float32),
        )

    def _call(
        self,
        factor: float = 1.0,
        d_hidden: Tensor | None = None,
        d_weight: Tensor | None = None,
        d_bias: Tensor | None = None,
        losses: Tensor | None = None,
        log_z: Tensor | None = None,
        d_losses: Tensor | None = None,
    ) -> float:
        rows, _alive = self._rows()

        def address(name: str, x: Tensor | None) -> int:
            return 0 if x is None else dense(name, x)

        wanted = library.cpu().Likelihoods(
            losses=address("losses", losses),
            log_z=address("log_z", log_z),
            d_losses=address("d_losses", d_losses),
            d_hidden=address("d_hidden", d_hidden),
            d_weight=address("d_weight", d_weight),
            d_bias=address("d_bias", d_bias),
            factor=factor,
        )
        try:
            return self._run(rows, wanted=wanted, threads=library.threads())
        except ValueError as error:
            raise InvalidInput(str(error)) from None

    def _rows(self) -> tuple[Any, list[Tensor]]:
        """The native description, and the tensors that must live as long as it is used."""
        hidden, weight, bias = self.hidden, self.weight, self.bias
        for name, x in (("hidden", hidden), ("weight", weight), ("target", self.target)):
            on_cpu(name, x)
        if hidden.dim() != 3 or weight.dim() != 2 or hidden.shape[2] != weight.shape[1]:
            raise InvalidInput(
                "hidden must be [G, M, E] and weight [V, E], not "
                f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
            )
        if hidden.stride(2) != 1:
            hidden = hidden.contiguous()
        weight = weight.to(hidden.dtype).contiguous()
        bias = None if bias is None else bias.to(hidden.dtype).contiguous()
        target = _per_row("target", self.target, hidden)
        if target.dtype not in _INTEGERS:
            raise InvalidInput(
                f"target must be an integer of one of {len(_INTEGERS)} types, not {target.dtype}"
            )
        keep = None if self.keep is None else _per_row("keep", self.keep, hidden)
        if keep is not None and keep.dtype != torch.bool:
            raise InvalidInput(f"keep must be bool, not {keep.dtype}")
        rows = library.cpu().PredictedRows(
            hidden=hidden.data_ptr(),
            shape=tuple(hidden.shape),
            strides=hidden.stride()[:2],
            dtype=dtype_number("hidden", hidden),
            weight=weight.data_ptr(),
            bias=0 if bias is None else dense("bias", bias, len(weight)),
            outputs=len(weight),
            target=target.data_ptr(),
            target_type=_INTEGERS[target.dtype],
            keep=0 if keep is None else keep.data_ptr(),
            ignore_index=self.ignore_index,
            levels=self.levels,
        )
        return rows, [x for x in (hidden, weight, bias, target, keep) if x is not None]


def _scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float32)


def _per_row(name: str, x: Tensor, hidden: Tensor) -> Tensor:
    if x.shape != hidden.shape[:2]:
        raise InvalidInput(f"{name} must be {tuple(hidden.shape[:2])}, not {tuple(x.shape)}")
    return x.contiguous()


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    sigma: float,
) -> PixelLikelihood:
    """A softmax over V levels; the options are those of `imagen_fast.ops.pixel_cross_entropy`."""
    run = partial(_cross_entropy, label_smoothing=label_smoothing, z_loss=z_loss, sigma=sigma)
    return PixelLikelihood(hidden, weight, bias, target, keep, ignore_index, len(weight), run)


def logistic_mixture(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    levels: int,
) -> PixelLikelihood:
    """A discretised mixture of K logistics; weight is [3 K, E]."""
    return PixelLikelihood(hidden, weight, bias, target, keep, ignore_index, levels, _logistic_mixture)


def _cross_entropy(rows: Any, **options: Any) -> float:
    return library.cpu().cross_entropy(rows, **options)


def _logistic_mixture(rows: Any, **options: Any) -> float:
    return library.cpu().logistic_mixture(rows, **options)
