"""Our backbones under torchvision's detectors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from imagen_fast.models import VisionTransformer
from imagen_fast.models.pyramid import PyramidBackbone


class DetectionBackbone(nn.Module):
    """What `FasterRCNN`, `MaskRCNN` and `RetinaNet` of torchvision.models.detection take as their backbone.

    The maps of a `PyramidBackbone` under the names "0", "1", ..., and as "pool" every second value of the
    last, as from torchvision's own `resnet_fpn_backbone`. The default anchors of Faster and Mask R-CNN are
    for the default strides, those of RetinaNet for (8, 16, 32, 64).

    Args:
        backbone: a vision transformer without a head, such as `load_backbone(run)[0]`; it takes images of any
            size from now on.
        strides, out_channels: of the maps but "pool".
    """

    def __init__(
        self, backbone: VisionTransformer, strides: Sequence[int] = (4, 8, 16, 32), out_channels: int = 256
    ) -> None:
        super().__init__()
        self.body = PyramidBackbone(backbone, strides, out_channels)
        self.out_channels = out_channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[B, C, H, W] -> maps [B, out_channels, ceil(H / stride), ceil(W / stride)], finest first."""
        maps = OrderedDict((str(number), x) for number, x in enumerate(self.body(image)))
        coarsest = next(reversed(maps.values()))
        maps["pool"] = nn.functional.max_pool2d(coarsest, 1, 2)
        return maps
