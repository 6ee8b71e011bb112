"""The backbones that a task can build on, and their classifiers, by their configuration."""

from __future__ import annotations

from typing import Any

from imagen_fast.models.config import ViTConfig
from imagen_fast.models.pixel_config import PixelConfig
from imagen_fast.models.pixel_transformer import PixelBackbone, PixelClassifier
from imagen_fast.models.timm_backbone import TimmBackbone, TimmClassifier, TimmConfig
from imagen_fast.models.vit import VisionTransformer

BackboneConfig = ViTConfig | PixelConfig | TimmConfig
Backbone = VisionTransformer | PixelBackbone | TimmBackbone
ClassifierModel = VisionTransformer | PixelClassifier | TimmClassifier


def backbone_config(values: dict[str, Any]) -> BackboneConfig:
    """From what a `to_dict` made; only a pixel transformer has a context, and a model of timm its name."""
    if "timm" in values:
        return TimmConfig.from_dict(values)
    return PixelConfig.from_dict(values) if "context" in values else ViTConfig.from_dict(values)


def build_backbone(config: BackboneConfig) -> Backbone:
    """A backbone with new weights: of pixels, timm's, or a vision transformer without a head."""
    if isinstance(config, TimmConfig):
        return TimmBackbone(config)
    return PixelBackbone(config) if isinstance(config, PixelConfig) else VisionTransformer(config)


def build_classifier(config: BackboneConfig, classes: int, drop_path: float = 0.0) -> ClassifierModel:
    """A classifier of the mean over tokens; a vision transformer must be configured to pool so."""
    if isinstance(config, PixelConfig):
        return PixelClassifier(config, classes, drop_path)
    if isinstance(config, TimmConfig):
        return TimmClassifier(config, classes, drop_path)
    return VisionTransformer(config, classes, drop_path)
