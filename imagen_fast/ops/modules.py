"""The operations as modules: what stays the same between calls is given once, tensors at each call.

They have no parameters and nothing in the state dict (but the norms, which have those of PyTorch's), take
`torch.compile(fullgraph=True)`, and compute what the function of that name in `imagen_fast.ops` does, which
says more about each argument. Where a kernel of ours serves them they have no second derivatives, as those.
Their forwards are in `layers`.
"""

from __future__ import annotations

import inspect

from torch import nn

from imagen_fast.ops import layers
from imagen_fast.ops.contexts import CausalContext
from imagen_fast.ops.functional.pixel_cross_entropy import Reduction

__all__ = [
    "GELU",
    "CausalPixelAttention",
    "CausalPixelSoftmax",
    "LayerNorm",
    "MaskedPatchAttention",
    "MaskedPixelMSE",
    "PixelCrossEntropy",
    "PixelLogisticMixture",
    "QuickGELU",
    "RMSNorm",
]


class _Options(nn.Module):
    """Prints the options that are not left to their defaults."""

    def extra_repr(self) -> str:
        options = inspect.signature(type(self)).parameters.values()
        # A subclass may take others.
        kept = (option for option in options if hasattr(self, option.name))
        given = ((option.name, getattr(self, option.name), option.default) for option in kept)
        return ", ".join(f"{name}={value!r}" for name, value, default in given if value != default)


class MaskedPatchAttention(_Options, layers.MaskedPatchAttention):
    """Attention among the patches of each image, when every image hides its own set.

    `forward(q, k, v, context=None, rotary=None, bias=None)`, as `masked_patch_attention`. A context is made
    once a step for all layers, and a rotary table once for all of them: both are given at each call.

    Args:
        scale: factor of the scores; 1 / sqrt(D) where not given.
        backend: force 'triton', 'cpu' or 'reference'.
    """

    def __init__(self, scale: float | None = None, backend: str | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.backend = backend


class CausalPixelAttention(_Options, layers.CausalPixelAttention):
    """Attention of the pixels of a grid to those generated before them, and to themselves.

    `forward(q, k, v)`, as `causal_pixel_attention`.

    Args:
        grid: (height, width) in pixels or patches.
        context: `Raster`, `Quadrant` or `Neighbourhood`, each with or without a prefix that all see.
        scale: factor of the scores; 1 / sqrt(D) where not given.
        backend: force 'triton', 'cpu' or 'reference'.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        context: CausalContext,
        scale: float | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.context = context
        self.scale = scale
        self.backend = backend


class CausalPixelSoftmax(_Options, layers.CausalPixelSoftmax):
    """Softmax over the keys that a causal context lets each query see: `forward(scores)`.

    Args:
        grid, context, backend: as those of `CausalPixelAttention`.
    """

    def __init__(self, grid: tuple[int, int], context: CausalContext, backend: str | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.context = context
        self.backend = backend


class PixelCrossEntropy(_Options, layers.PixelCrossEntropy):
    """Projection to the levels of a pixel, softmax and negative log-likelihood in one.

    `forward(hidden, weight, target, bias=None, keep=None)`, as `pixel_cross_entropy`: weight and bias are
    those of the layer that would project, which is not called.

    Args:
        shift: hidden[..., i, :] predicts target[..., i + shift].
        ignore_index: a target of this value does not count.
        label_smoothing: share of the target that is spread over all levels, 0 to 1.
        z_loss: weight of the squared logarithm of the normaliser.
        sigma: standard deviation of Gaussian targets, in levels; 0: the target alone.
        reduction: 'mean', 'sum' or 'none'.
        backend: force 'triton', 'cpu' or 'reference'.
    """

    def __init__(
        self,
        shift: int = 0,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        sigma: float = 0.0,
        reduction: Reduction = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.sigma = sigma
        self.reduction = reduction
        self.backend = backend


class PixelLogisticMixture(_Options, layers.PixelLogisticMixture):
    """Projection to a discretised mixture of logistics and its negative log-likelihood in one.

    `forward(hidden, weight, target, bias=None, keep=None)`, as `pixel_logistic_mixture`.

    Args:
        levels: how many a pixel can take, at least 2.
        shift, ignore_index, reduction, backend: as those of `PixelCrossEntropy`.
    """

    def __init__(
        self,
        levels: int = 256,
        shift: int = 0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.shift = shift
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.backend = backend


class MaskedPixelMSE(_Options, layers.MaskedPixelMSE):
    """The loss of a masked autoencoder straight from the image.

    `forward(prediction, image, hidden=None)`, as `masked_pixel_mse`.

    Args:
        normalise: normalise the target per patch.
        eps: added to the variance, in squared pixel units.
        backend: force 'triton', 'cpu' or 'reference'.
    """

    def __init__(self, normalise: bool = True, eps: float = 1e-6, backend: str | None = None) -> None:
        super().__init__()
        self.normalise = normalise
        self.eps = eps
        self.backend = backend


class LayerNorm(layers.LayerNorm, nn.LayerNorm):
    """PyTorch's, with gradients that can be trusted in half precision on the CPU."""


class RMSNorm(layers.RMSNorm, nn.RMSNorm):
    """PyTorch's, with an `eps` in one pass in bf16 on the CPU."""


class GELU(layers.GELU, nn.GELU):
    """PyTorch's, of which the exact one is faster in bf16 on the CPU."""


class QuickGELU(layers.QuickGELU):
    """x * sigmoid(1.702 x), in one pass in bf16 on the CPU."""
