"""The masked objective of a backbone of maps, as in SimMIM (Xie et al. 2022)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imagen_fast.data import Batch
from imagen_fast.data.masks import blockwise_masks, hidden_pixels, random_masks
from imagen_fast.errors import InvalidInput
from imagen_fast.models import TimmBackbone, TimmConfig
from imagen_fast.models.simmim import SimMIM
from imagen_fast.objectives.output import Output
from imagen_fast.objectives.pixels import PixelNormalizer


@dataclass(frozen=True)
class SimMIMConfig:
    """How pixels are hidden.

    Args:
        mask_ratio: share of the blocks that are hidden, strictly between 0 and 1.
        mask: `random` blocks, or `blockwise` rectangles of them (Bao et al. 2021).
        block: side of a block in pixels; it need not be the backbone's stride.
    """

    mask_ratio: float = 0.6
    mask: Literal["random", "blockwise"] = "random"
    block: int = 32

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise InvalidInput(f"mask ratio must lie strictly between 0 and 1, not {self.mask_ratio}")
        if self.mask not in ("random", "blockwise"):
            raise InvalidInput(f"mask must be 'random' or 'blockwise', not {self.mask!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SimMIMObjective(nn.Module):
    """The mean absolute error of hidden pixels, normalised by the data's mean and std only.

    Batch norms see images with hidden blocks here, and keep the statistics of those:
    `imagen_fast.models.batch_norm.take_statistics` gives them those of whole images for what comes after.

    Args:
        mean, std: of the data, per channel on the scale 0..1; images come as uint8.
        seed: masks of step s are a function of (seed, s).
    """

    def __init__(
        self,
        backbone: TimmConfig,
        config: SimMIMConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 0,
    ) -> None:
        super().__init__()
        height, width = backbone.image_size
        if config.block < 1 or height % config.block or width % config.block:
            raise InvalidInput(
                f"a hidden block of {config.block} pixels does not divide an image of {height}x{width}"
            )
        self.config, self.seed = config, seed
        self.grid = height // config.block, width // config.block
        self.normalize = PixelNormalizer(mean, std)
        network = TimmBackbone(backbone)
        self.model = SimMIM(network, network.embed_dim, network.stride, backbone.channels)

    @property
    def backbone(self) -> TimmBackbone:
        backbone = self.model.backbone
        assert isinstance(backbone, TimmBackbone)
        return backbone

    # Seeds are mixed by NumPy on the host, which torch.compile cannot trace.
    @torch.compiler.disable
    def hidden(self, batch: int, step: int, device: torch.device) -> Tensor:
        """bool [B, 1, H, W], true where a pixel is hidden; as many in every image."""
        make = random_masks if self.config.mask == "random" else blockwise_masks
        masks = make(batch, self.grid, self.config.mask_ratio, seed=self.seed, step=step, device=device)
        return hidden_pixels(masks, self.grid, self.config.block)

    def forward(self, batch: Batch, step: int) -> Output:
        return self.loss(batch.images, self.hidden(len(batch.images), step, batch.images.device))

    def loss(self, images: Tensor, hidden: Tensor) -> Output:
        """The loss of uint8 images [B, C, H, W] of which pixels are hidden, bool [B, 1, H, W]."""
        normal = self.normalize(images)
        error = (self.model(normal, hidden).float() - normal).abs()
        return Output((error * hidden).sum() / (hidden.sum() * images.shape[1]))
