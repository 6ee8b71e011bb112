"""transformers' ViTMAEForPreTraining, trained as its Trainer trains it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.peers import TRANSFORMERS, trainer
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.models import DecoderConfig, ViTConfig
from imagen_fast.models.convert import vitmae_to_ours

ViTMAEConfig, ViTMAEForPreTraining = TRANSFORMERS.load("ViTMAEConfig", "ViTMAEForPreTraining")


def build(encoder: ViTConfig, decoder: DecoderConfig, hidden_share: float) -> nn.Module:
    """A model with random weights, in its default attention (SDPA)."""
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=encoder.image_size[0],
            patch_size=encoder.patch_size,
            num_channels=encoder.channels,
            hidden_size=encoder.embed_dim,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.heads,
            intermediate_size=round(encoder.embed_dim * encoder.mlp_ratio),
            layer_norm_eps=encoder.norm_eps,
            decoder_hidden_size=decoder.embed_dim,
            decoder_num_hidden_layers=decoder.depth,
            decoder_num_attention_heads=decoder.heads,
            decoder_intermediate_size=round(decoder.embed_dim * decoder.mlp_ratio),
            mask_ratio=hidden_share,
            norm_pix_loss=True,
        )
    )


def training_step(
    model: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype, compiled: bool = False
) -> TrainingStep:
    def loss(images: Tensor, noise: Tensor) -> Tensor:
        return model(pixel_values=images, noise=noise).loss

    return trainer.training_step(model, loss, batch, dtype, compiled, vitmae_to_ours)
