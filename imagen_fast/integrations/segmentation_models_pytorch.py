"""Our backbones as encoders of segmentation_models_pytorch, which importing this module makes known to it.

`Unet("imagen_fast_vit_small_patch16_224", encoder_weights=None)` and its other models then take them.
"""

from __future__ import annotations

from dataclasses import replace

from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from imagen_fast.errors import InvalidInput
from imagen_fast.integrations.names import named_configs
from imagen_fast.models import VisionTransformer, ViTConfig
from imagen_fast.models.pyramid import PyramidBackbone, refuse_other_backbones

CHANNELS = 256
_STRIDES = (4, 8, 16, 32)


class VisionTransformerEncoder(nn.Module, EncoderMixin):
    """The image and its maps of strides 2, 4, 8, 16 and 32, as segmentation_models_pytorch wants them.

    The map of stride 2 is that of stride 4 with its channels laid out as pixels (Shi et al. 2016), so that a
    decoder that does not read it leaves no weights without a gradient. An image may be of any size.

    Args:
        backbone: without a head, or the shapes of one with new weights.
        depth: maps beside the image, 1 to 5.
        output_stride: 8 or 16: no map is coarser.
    """

    _is_torch_scriptable = False

    def __init__(
        self, backbone: VisionTransformer | ViTConfig, depth: int = 5, output_stride: int = 32
    ) -> None:
        super().__init__()
        if depth not in range(1, 6):
            raise InvalidInput(f"encoder_depth must be 1 to 5, not {depth}")
        if output_stride not in (8, 16, 32):
            raise InvalidInput(f"the output stride must be 8, 16 or 32, not {output_stride}")
        if isinstance(backbone, ViTConfig):
            backbone = VisionTransformer(backbone)
        strides = [min(stride, output_stride) for stride in _STRIDES[: max(depth - 1, 1)]]
        self.body = PyramidBackbone(backbone, strides, CHANNELS)
        self._depth, self._output_stride = depth, output_stride
        self._in_channels = backbone.config.channels
        self._out_channels = [self._in_channels, CHANNELS // 4, *[CHANNELS] * len(_STRIDES)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> the image and maps [B, 64 or 256, ceil(H / stride), ceil(W / stride)]."""
        maps = self.body(image)
        height, width = image.shape[-2:]
        finest = nn.functional.pixel_shuffle(maps[0], 2)[..., : -(-height // 2), : -(-width // 2)]
        return [image, finest, *maps][: self._depth + 1]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Let images have so many channels: the weights of three are summed or used in turn."""
        if in_channels == self._in_channels:
            return
        if self._in_channels != 3:
            raise InvalidInput(
                f"only a backbone for 3 channels can take {in_channels}, not one for {self._in_channels}"
            )
        # The weights that the backbone came with are kept, whatever they are.
        super().set_in_channels(in_channels, pretrained=True)
        backbone = self.body.backbone
        backbone.config = replace(backbone.config, channels=in_channels)

    def make_dilated(self, output_stride: int) -> None:
        """Nothing is left to do: the maps are made at the strides that `__init__` was asked for."""


def register_encoder(name: str, backbone: VisionTransformer | ViTConfig) -> None:
    """Make an encoder known under a name; every model that asks for it has weights of its own.

    Args:
        name: a new one, or one that was registered here before.
        backbone: one with the weights to start from, such as `load_backbone(run)[0]`, or shapes.

    Raises:
        InvalidInput: the name is of an encoder of theirs, or the backbone is none that a pyramid is made of.
    """
    if encoders.get(name, {"encoder": VisionTransformerEncoder})["encoder"] is not VisionTransformerEncoder:
        raise InvalidInput(f"{name!r} is an encoder of segmentation_models_pytorch already")
    if not isinstance(backbone, ViTConfig):
        refuse_other_backbones(backbone)
    encoders[name] = {
        "encoder": VisionTransformerEncoder,
        "pretrained_settings": {},
        # Which segmentation_models_pytorch copies for each model.
        "params": {"backbone": backbone},
    }


for _name, _config in named_configs().items():
    # A pyramid needs a patch that is a power of two.
    if _config.patch_size & (_config.patch_size - 1) == 0:
        register_encoder(_name, _config)
