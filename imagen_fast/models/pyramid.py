"""Maps of several strides from the one map of a plain backbone, for detection and segmentation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from imagen_fast.errors import InvalidInput
from imagen_fast.models.vit import VisionTransformer
from imagen_fast.ops.modules import LayerNorm


class MapNorm(LayerNorm):
    """Layer normalisation over the channels of a map [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SimplePyramid(nn.Module):
    """The simple feature pyramid of ViTDet (Li et al. 2022, section 3): every map from the last one.

    A finer map is made by deconvolutions that double the map and halve its width, with a norm and a GELU
    between them, a coarser one by max-pooling; then come a 1x1 and a 3x3 convolution, each with a norm.

    Args:
        dim: channels of the map.
        patch_size: its stride in pixels, a power of two.
        strides: those of the maps to make, powers of two.
        channels: of each of them.
    """

    def __init__(self, dim: int, patch_size: int, strides: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        for what, value in [("patch", patch_size), *(("stride", stride) for stride in strides)]:
            if value < 1 or value & (value - 1):
                raise InvalidInput(f"the {what} of a pyramid must be a power of two pixels, not {value}")
        self.levels = nn.ModuleList(_level(dim, patch_size, stride, channels) for stride in strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, dim, h, w] -> maps [B, channels, h * patch_size / stride, w * patch_size / stride]."""
        return [level(x) for level in self.levels]


def _level(dim: int, patch_size: int, stride: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    if stride > patch_size:
        layers.append(nn.MaxPool2d(stride // patch_size))
    while stride < patch_size:
        if layers:
            layers += [MapNorm(dim, eps=1e-6), nn.GELU()]
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim, stride = dim // 2, stride * 2
    return nn.Sequential(
        *layers,
        nn.Conv2d(dim, channels, 1, bias=False),
        MapNorm(channels, eps=1e-6),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        MapNorm(channels, eps=1e-6),
    )


def refuse_other_backbones(backbone: nn.Module) -> None:
    """Those that no pyramid is made of."""
    if not isinstance(backbone, VisionTransformer):
        raise InvalidInput(
            f"a pyramid is made of a VisionTransformer of imagen_fast, not of a {type(backbone).__name__}"
        )
    if not isinstance(backbone.head, nn.Identity):
        raise InvalidInput("a pyramid reads no head: backbone.head = torch.nn.Identity() takes it away")


class PyramidBackbone(nn.Module):
    """A vision transformer and the pyramid of its last map, for images of any size.

    All blocks attend to the whole image: ViTDet's windows, which save time in large images, are not here.

    Args:
        backbone: without a head; it takes images of any size from now on.
        strides, channels: see `SimplePyramid`.

    Raises:
        InvalidInput: a patch or a stride that is no power of two, no stride, another backbone, or one with a
            head.
    """

    def __init__(
        self, backbone: VisionTransformer, strides: Sequence[int] = (4, 8, 16, 32), channels: int = 256
    ) -> None:
        super().__init__()
        if not strides:
            raise InvalidInput("a pyramid needs a stride at least")
        refuse_other_backbones(backbone)
        config = backbone.config
        self.strides = tuple(strides)
        self.backbone = backbone
        self.pyramid = SimplePyramid(config.embed_dim, config.patch_size, strides, channels)
        # An image is padded to whole cells of the coarsest map.
        backbone.patch_embed.sizes = "divisible"
        self.multiple = max(config.patch_size, *strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B, C, H, W], normalised -> maps [B, channels, ceil(H / stride), ceil(W / stride)]."""
        height, width = image.shape[-2:]
        padded = nn.functional.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        rows, columns = self.backbone.patch_embed.grid_of(padded)
        # With the norm that the backbone was trained with: as in pretraining, that is what others read. Where
        # it comes after pooling, each token has it here.
        tokens = self.backbone.fc_norm(self.backbone.forward_features(padded))[:, 1:]
        maps = self.pyramid(tokens.transpose(1, 2).unflatten(-1, (rows, columns)))
        return [
            x[..., : -(-height // stride), : -(-width // stride)]
            for x, stride in zip(maps, self.strides, strict=True)
        ]
