"""The masked autoencoder: a backbone that sees the visible patches, a decoder that fills in the hidden."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagen_fast.models.config import DecoderConfig, ViTConfig
from imagen_fast.models.layers import Block, CrossBlock, Linear, initialise
from imagen_fast.models.positions import sincos_positions
from imagen_fast.models.vit import VisionTransformer
from imagen_fast.ops.modules import LayerNorm


class MaskedDecoder(nn.Module):
    """Tokens of visible patches to predictions of hidden ones; see `DecoderConfig` for the two kinds.

    Args:
        outputs: values predicted for a patch.
    """

    def __init__(self, config: DecoderConfig, encoder: ViTConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        dim, eps = config.embed_dim, encoder.norm_eps
        self.embed = Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.pos_embed = nn.Parameter(sincos_positions(dim, encoder.grid), requires_grad=False)
        kind = Block if config.kind == "full" else CrossBlock
        self.blocks = nn.ModuleList(
            kind(dim, config.heads, config.mlp_ratio, eps) for _ in range(config.depth)
        )
        self.norm = LayerNorm(dim, eps=eps)
        self.pred = Linear(dim, outputs)
        self.apply(initialise)

    def features(self, tokens: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Normalised decoder tokens [B, m, dim] of the patches in `hidden` [B, m]; see `forward`."""
        position = self.pos_embed[0]
        class_token = torch.zeros_like(visible[:, :1])
        here = torch.cat([class_token, visible + 1], 1)
        seen = self.embed(tokens) + position[here]
        asked = self.mask_token + position[hidden + 1]
        if self.config.kind == "cross":
            for block in self.blocks:
                asked = block(asked, seen)
            return self.norm(asked)
        x = torch.cat([seen, asked], 1)
        for block in self.blocks[:-1]:
            x = block(x)
        # Of the last block only the hidden tokens are ever read.
        return self.norm(self.blocks[-1](x, first=seen.shape[1]))

    def forward(self, tokens: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Predictions [B, m, outputs].

        Args:
            tokens: [B, 1 + n, E] from the backbone, class token first.
            visible: [B, n] numbers of the patches that the tokens stand for.
            hidden: [B, m] numbers of the patches to predict.
        """
        return self.pred(self.features(tokens, visible, hidden))


class MaskedAutoencoder(nn.Module):
    """He et al. 2021 with the `full` decoder; Fu et al. 2024 with the `cross` decoder."""

    def __init__(self, encoder: ViTConfig, decoder: DecoderConfig, outputs: int | None = None) -> None:
        super().__init__()
        self.encoder = VisionTransformer(encoder)
        self.decoder = MaskedDecoder(decoder, encoder, encoder.patch_values if outputs is None else outputs)

    def forward(self, image: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Predictions [B, m, outputs] of the patches in `hidden` from those in `visible` of [B, C, H, W]."""
        return self.decoder(self.encoder.forward_features(image, visible), visible, hidden)
