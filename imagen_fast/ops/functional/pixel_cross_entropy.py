"""Projection to the levels of a pixel, softmax and negative log-likelihood in one: contract and dispatch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.ops.functional.predicted import likelihood, predicted_rows

Reduction = Literal["none", "mean", "sum"]


def pixel_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    shift: int = 0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    sigma: float = 0.0,
    reduction: Reduction = "mean",
    backend: str | None = None,
) -> Tensor:
    """The negative log-likelihood of pixels from the vectors that predict them; logits are never in memory.

    With z = hidden weight^T + bias and log Z = log sum_v exp z[v], the loss of a row is

        -sum_v t[v] (z[v] - log Z) + z_loss * (log Z)^2

    where t is one at the target; with `sigma` a Gaussian around it, t[v] proportional to
    exp(-(v - target)^2 / (2 sigma^2)) (Diaz and Marathe 2019, soft labels for ordinal regression); and with
    `label_smoothing` e then (1 - e) t + e / V (Szegedy et al. 2016, section 7). The last term is PaLM's
    (Chowdhery et al. 2022, section 5).

    Args:
        hidden: [..., E], a vector a prediction; any strides, last dimension contiguous.
        weight: [V, E], of the levels a pixel can take: 256 intensities, 512 colours.
        target: [...] integers of any width, 0 to V - 1, which is checked on the CPU only, since checking on
            a GPU would wait for it. uint8 is taken as it is.
        bias: [V].
        keep: [...] bool, aligned with the targets: only targets where it is true count. None: all do.
        shift: hidden[..., i, :] predicts target[..., i + shift]: 1 for a sequence that predicts its own next
            element, without a copy of either.
        ignore_index: a target of this value does not count.
        label_smoothing: share of the target that is spread over all levels, 0 to 1.
        z_loss: weight of the squared logarithm of the normaliser.
        sigma: standard deviation of the Gaussian targets, in levels; 0: the target alone.
        reduction: 'mean' over the rows that count (0 where none does), 'sum', or 'none', where rows that do
            not count give 0.
        backend: force 'triton', 'cpu' or 'reference' for this call.

    Returns:
        float32, whatever the type of `hidden` (float64 for float64): a scalar, or for 'none' [...] of the
        targets that are predicted. What a row that does not count holds, NaN included, changes nothing.

    Raises:
        InvalidInput: shapes, types, devices or values that do not fit together.
        BackendUnavailable: the forced back-end cannot serve the call.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise InvalidInput(f"label_smoothing must be 0 to 1, not {label_smoothing}")
    if not z_loss >= 0.0:
        raise InvalidInput(f"z_loss must be 0 or more, not {z_loss}")
    if not sigma >= 0.0:
        raise InvalidInput(f"sigma must be 0 or more levels, not {sigma}")
    rows = predicted_rows(hidden, weight, bias, target, keep, shift, ignore_index, len(weight), reduction)
    options = (ignore_index, label_smoothing, z_loss, sigma)
    return likelihood("pixel_cross_entropy", rows, options, backend)
