"""Projection to a discretised mixture of logistics and its negative log-likelihood: contract and dispatch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.ops.functional.predicted import likelihood, predicted_rows


def pixel_logistic_mixture(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    levels: int = 256,
    keep: Tensor | None = None,
    shift: int = 0,
    ignore_index: int = -100,
    reduction: Literal["none", "mean", "sum"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """The negative log-likelihood of pixels under a discretised mixture of logistics.

    The projection hidden weight^T + bias holds, of K logistics, K logits of their shares, K means and K
    logarithms of their scales, on the line on which level v of V lies at x = 2 v / (V - 1) - 1. With
    h = 1 / (V - 1), the loss of a row is

        -log sum_k softmax(logits)[k] (S((x + h - mean[k]) / scale[k]) - S((x - h - mean[k]) / scale[k]))

    where S is the logistic function, and 1 for the upper bound of the last level, 0 for the lower one of the
    first (Salimans et al. 2017, PixelCNN++, section 2.1). Logarithms of scales count as no less than -7, as
    there. Channels are conditioned on each other by what is in their vectors, not in here.

    Args:
        hidden: [..., E], a vector a prediction; any strides, last dimension contiguous.
        weight: [3 K, E].
        target: [...] integers of any width, 0 to levels - 1, which is checked on the CPU only.
        bias: [3 K].
        levels: V, at least 2.
        keep, shift, ignore_index, reduction, backend: as those of `pixel_cross_entropy`.

    Returns:
        float32 (float64 for float64): a scalar, or for 'none' [...] of the targets that are predicted.

    Raises:
        InvalidInput, BackendUnavailable: as `pixel_cross_entropy`.
    """
    if levels < 2:
        raise InvalidInput(f"levels must be 2 or more, not {levels}")
    if weight.dim() == 2 and (len(weight) % 3 or not len(weight)):
        raise InvalidInput(f"weight must have 3 rows a logistic, not {len(weight)} rows")
    rows = predicted_rows(hidden, weight, bias, target, keep, shift, ignore_index, levels, reduction)
    return likelihood("pixel_logistic_mixture", rows, (ignore_index, levels), backend)
