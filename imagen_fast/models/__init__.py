"""Backbones, decoders and the conversion of their weights."""

from imagen_fast.models.config import MODELS, DecoderConfig, ViTConfig, decoder_config, vit_config
from imagen_fast.models.mae import MaskedAutoencoder, MaskedDecoder
from imagen_fast.models.vit import VisionTransformer

__all__ = [
    "MODELS",
    "DecoderConfig",
    "MaskedAutoencoder",
    "MaskedDecoder",
    "ViTConfig",
    "VisionTransformer",
    "decoder_config",
    "vit_config",
]
