"""The masked objective: see some patches of an image, predict the pixels of the others."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imagen_fast.data import Batch
from imagen_fast.data.masks import Masks, blockwise_masks, keep_hidden, random_masks
from imagen_fast.errors import InvalidInput
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, PixelHead, ViTConfig
from imagen_fast.models.pixel_symbols import pixel_levels
from imagen_fast.objectives.output import Output
from imagen_fast.objectives.pixels import PixelNormalizer
from imagen_fast.ops import masked_pixel_mse
from imagen_fast.ops.patches import chosen_patches


@dataclass(frozen=True)
class MaskedConfig:
    """How patches are hidden, and what is asked of them.

    Args:
        mask_ratio: share of the patches that are hidden, strictly between 0 and 1.
        mask: `random` patches, or `blockwise` rectangles (Bao et al. 2021).
        loss: `mse` of pixels normalised per patch (He et al. 2021), or `categorical`:
            -mean log p(pixel | visible) over the levels of a pixel.
        predict: share of the hidden patches that are predicted; below 1 with the cross decoder only,
            whose predictions do not depend on each other.
        levels: intensities a pixel can take, for the categorical loss.
    """

    mask_ratio: float = 0.75
    mask: Literal["random", "blockwise"] = "random"
    loss: Literal["mse", "categorical"] = "mse"
    predict: float = 1.0
    levels: int = 256

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise InvalidInput(f"mask ratio must lie strictly between 0 and 1, not {self.mask_ratio}")
        if self.mask not in ("random", "blockwise"):
            raise InvalidInput(f"mask must be 'random' or 'blockwise', not {self.mask!r}")
        if self.loss not in ("mse", "categorical"):
            raise InvalidInput(f"loss must be 'mse' or 'categorical', not {self.loss!r}")
        if not 2 <= self.levels <= 256:
            raise InvalidInput(f"levels must be 2 to 256, what a byte can hold, not {self.levels}")
        if not 0.0 < self.predict <= 1.0:
            raise InvalidInput(f"the predicted share must lie above 0 and at most at 1, not {self.predict}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MaskedObjective(nn.Module):
    """A masked autoencoder with its masks and its loss.

    Args:
        mean, std: of the data, per channel on the scale 0..1; images come as uint8.
        seed: masks of step s are a function of (seed, s).
    """

    def __init__(
        self,
        encoder: ViTConfig,
        decoder: DecoderConfig,
        config: MaskedConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 0,
    ) -> None:
        super().__init__()
        if config.predict < 1.0 and decoder.kind != "cross":
            raise InvalidInput(
                "only the cross decoder can predict a share of the hidden patches; the full one needs all"
            )
        if config.loss == "mse" and encoder.patch_values < 2:
            raise InvalidInput(
                "a patch of one value has no variance to be normalised by; take larger patches, "
                "or loss 'categorical'"
            )
        self.config, self.seed = config, seed
        self.normalize = PixelNormalizer(mean, std)
        self.model = MaskedAutoencoder(encoder, decoder)
        if config.loss == "categorical":
            head = PixelHead(decoder.embed_dim, encoder.patch_values, config.levels)
            self.model.decoder.pred = head  # type: ignore[assignment]

    # Seeds are mixed by NumPy on the host, which torch.compile cannot trace.
    @torch.compiler.disable
    def masks(self, batch: int, step: int, device: torch.device) -> Masks:
        grid = self.model.encoder.config.grid
        make = random_masks if self.config.mask == "random" else blockwise_masks
        masks = make(batch, grid, self.config.mask_ratio, seed=self.seed, step=step, device=device)
        return keep_hidden(masks, self.config.predict, seed=self.seed, step=step)

    def forward(self, batch: Batch, step: int) -> Output:
        masks = self.masks(len(batch.images), step, batch.images.device)
        return self.loss(batch.images, masks)

    def loss(self, images: Tensor, masks: Masks) -> Output:
        """The loss of uint8 images [B, C, H, W] under given masks."""
        normal = self.normalize(images)
        if self.config.loss == "mse":
            prediction = self.model(normal, masks.visible, masks.hidden)
            loss = masked_pixel_mse(prediction, normal, masks.hidden)
            return Output(loss)
        tokens = self.model.encoder.forward_features(normal, masks.visible)
        features = self.model.decoder.features(tokens, masks.visible, masks.hidden)
        head: PixelHead = self.model.decoder.pred  # type: ignore[assignment]
        target = pixel_levels(
            chosen_patches(images, self.model.encoder.config.patch_size, masks.hidden), self.config.levels
        )
        loss = head.loss(features, target)
        return Output(loss, {"bits_per_dim": loss.detach() / math.log(2)})
