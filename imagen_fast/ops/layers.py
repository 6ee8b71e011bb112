"""The operations as layers with no state and nothing but a `forward`.

That is what Hugging Face's `kernelize` may put in place of a module's own forward: the options are attributes
of that module, annotated here. `modules` has them as modules to build a model of.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from imagen_fast.ops import functional as ops
from imagen_fast.ops.contexts import CausalContext, Visible
from imagen_fast.ops.functional.pixel_cross_entropy import Reduction
from imagen_fast.ops.gelu import gelu, quick_gelu
from imagen_fast.ops.layer_norm import layer_norm
from imagen_fast.ops.rms_norm import rms_norm
from imagen_fast.ops.rotary import Rotary


class _Layer(nn.Module):
    # What `kernelize` asks for; that there is a backward it takes for granted.
    can_torch_compile = True


def _backend(module: nn.Module) -> str | None:
    """The one that is forced; modules of others need not know of back-ends."""
    return getattr(module, "backend", None)


class MaskedPatchAttention(_Layer):
    scale: float | None

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: Visible | None = None,
        rotary: Rotary | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        return ops.masked_patch_attention(
            q, k, v, context, scale=self.scale, rotary=rotary, bias=bias, backend=_backend(self)
        )


class CausalPixelAttention(_Layer):
    grid: tuple[int, int]
    context: CausalContext
    scale: float | None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ops.causal_pixel_attention(
            q, k, v, self.grid, self.context, scale=self.scale, backend=_backend(self)
        )


class CausalPixelSoftmax(_Layer):
    grid: tuple[int, int]
    context: CausalContext

    def forward(self, scores: Tensor) -> Tensor:
        return ops.causal_pixel_softmax(scores, self.grid, self.context, backend=_backend(self))


class PixelCrossEntropy(_Layer):
    shift: int
    ignore_index: int
    label_smoothing: float
    z_loss: float
    sigma: float
    reduction: Reduction

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        return ops.pixel_cross_entropy(
            hidden,
            weight,
            target,
            bias,
            keep=keep,
            shift=self.shift,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            sigma=self.sigma,
            reduction=self.reduction,
            backend=_backend(self),
        )


class PixelLogisticMixture(_Layer):
    levels: int
    shift: int
    ignore_index: int
    reduction: Reduction

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        return ops.pixel_logistic_mixture(
            hidden,
            weight,
            target,
            bias,
            levels=self.levels,
            keep=keep,
            shift=self.shift,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            backend=_backend(self),
        )


class MaskedPixelMSE(_Layer):
    normalise: bool
    eps: float

    def forward(self, prediction: Tensor, image: Tensor, hidden: Tensor | None = None) -> Tensor:
        return ops.masked_pixel_mse(
            prediction, image, hidden, normalise=self.normalise, eps=self.eps, backend=_backend(self)
        )


class LayerNorm(_Layer):
    normalized_shape: tuple[int, ...]
    weight: nn.Parameter
    bias: nn.Parameter
    eps: float

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        # Over more than the last dimension, or without a weight or a bias, it is PyTorch's own.
        if len(self.normalized_shape) > 1 or weight is None or bias is None:
            return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
        return layer_norm(input, weight, bias, self.eps)


class RMSNorm(_Layer):
    normalized_shape: tuple[int, ...]
    weight: nn.Parameter
    eps: float | None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        # transformers' modules have neither of these names.
        shape = getattr(self, "normalized_shape", None) or weight.shape
        eps = getattr(self, "eps", getattr(self, "variance_epsilon", None))
        if len(shape) > 1 or weight is None or eps is None:
            return functional.rms_norm(x, shape, weight, eps)
        return rms_norm(x, weight, eps)


class GELU(_Layer):
    approximate: str

    def forward(self, input: Tensor) -> Tensor:
        # Modules of others that have no such option are exact.
        approximate = getattr(self, "approximate", "none")
        return gelu(input) if approximate == "none" else functional.gelu(input, approximate=approximate)


class QuickGELU(_Layer):
    def forward(self, input: Tensor) -> Tensor:
        return quick_gelu(input)
