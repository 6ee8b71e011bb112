"""Backbones, decoders, pixel transformers and the conversion of their weights."""

from imagen_fast.models.backbone import (
    Backbone,
    BackboneConfig,
    ClassifierModel,
    backbone_config,
    build_backbone,
    build_classifier,
)
from imagen_fast.models.config import MODELS, DecoderConfig, ViTConfig, decoder_config, vit_config
from imagen_fast.models.mae import MaskedAutoencoder, MaskedDecoder
from imagen_fast.models.pixel_config import CONTEXTS, PixelConfig, pixel_config
from imagen_fast.models.pixel_head import PixelHead
from imagen_fast.models.pixel_transformer import PixelBackbone, PixelClassifier, PixelTransformer
from imagen_fast.models.simmim import SimMIM
from imagen_fast.models.timm_backbone import TimmBackbone, TimmClassifier, TimmConfig
from imagen_fast.models.vit import VisionTransformer

__all__ = [
    "CONTEXTS",
    "MODELS",
    "Backbone",
    "BackboneConfig",
    "ClassifierModel",
    "DecoderConfig",
    "MaskedAutoencoder",
    "MaskedDecoder",
    "PixelBackbone",
    "PixelClassifier",
    "PixelConfig",
    "PixelHead",
    "PixelTransformer",
    "SimMIM",
    "TimmBackbone",
    "TimmClassifier",
    "TimmConfig",
    "ViTConfig",
    "VisionTransformer",
    "backbone_config",
    "build_backbone",
    "build_classifier",
    "decoder_config",
    "pixel_config",
    "vit_config",
]
