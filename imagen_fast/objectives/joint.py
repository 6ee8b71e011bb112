"""The joint objective: fill in hidden patches and predict the next one, with one backbone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from imagen_fast.data import Batch
from imagen_fast.errors import InvalidInput
from imagen_fast.models import DecoderConfig, PixelHead, ViTConfig
from imagen_fast.models.pixel_symbols import pixel_levels
from imagen_fast.objectives.masked import MaskedConfig, MaskedObjective
from imagen_fast.objectives.output import Output
from imagen_fast.ops import masked_pixel_mse
from imagen_fast.ops.patches import patchify


@dataclass(frozen=True)
class Weights:
    """Of the two losses in their sum."""

    masked: float = 1.0
    causal: float = 1.0

    def __post_init__(self) -> None:
        if not (self.masked > 0 and self.causal > 0):
            raise InvalidInput(
                f"both weights must be above 0, not {self.masked} and {self.causal}; "
                "one loss alone is the masked or the causal objective"
            )


class JointObjective(MaskedObjective):
    """The masked objective, and on the same backbone the pixels of each patch from the patches before it.

    The causal part takes the patches in raster order (El-Nouby et al. 2024, AIM), each attending to those up
    to itself, and has the same loss as the masked one: pixels normalised per patch, or their categorical
    likelihood.
    """

    def __init__(
        self,
        encoder: ViTConfig,
        decoder: DecoderConfig,
        config: MaskedConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 0,
        weights: Weights | None = None,
    ) -> None:
        super().__init__(encoder, decoder, config, mean, std, seed)
        self.weights = weights or Weights()
        self.next_patch: nn.Module
        if config.loss == "categorical":
            self.next_patch = PixelHead(
                encoder.embed_dim, encoder.patch_values, config.levels, encoder.channels
            )
        else:
            self.next_patch = nn.Linear(encoder.embed_dim, encoder.patch_values)

    def forward(self, batch: Batch, step: int) -> Output:
        masked = super().forward(batch, step)
        causal = self.causal_loss(batch.images)
        loss = self.weights.masked * masked.loss + self.weights.causal * causal
        parts = {"masked_loss": masked.loss.detach(), "causal_loss": causal.detach()}
        return Output(loss, {**masked.metrics, **parts})

    def causal_loss(self, images: Tensor) -> Tensor:
        """Of uint8 images [B, C, H, W]: a scalar, in nats a value or as a mean squared error."""
        normal = self.normalize(images)
        tokens = self.model.encoder.predictive_features(normal)
        if self.config.loss == "mse":
            return masked_pixel_mse(self.next_patch(tokens), normal)
        target = patchify(pixel_levels(images, self.config.levels), self.model.encoder.config.patch_size)
        head: PixelHead = self.next_patch  # type: ignore[assignment]
        return head.loss(tokens, target)
