"""A masked autoencoder of timm's parts, put together as facebookresearch/mae does it.

timm has no such model of its own: its VisionTransformer encodes the visible tokens, its blocks decode. It is
trained as transformers' model is.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.peers import TIMM, trainer
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.data.masks import visible_count
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, ViTConfig

(models,) = TIMM.load("models")
Block, VisionTransformer = models.vision_transformer.Block, models.VisionTransformer


class TimmMAE(nn.Module):
    """Its parameters have the names of ours, and it hides the same patches.

    Args:
        hidden_share: of the patches of each image.
    """

    def __init__(self, encoder: ViTConfig, decoder: DecoderConfig, hidden_share: float) -> None:
        super().__init__()
        self.kept = visible_count(encoder.patches, hidden_share)
        self.patch = encoder.patch_size
        norm = partial(nn.LayerNorm, eps=encoder.norm_eps)
        self.encoder = VisionTransformer(
            img_size=encoder.image_size,
            patch_size=encoder.patch_size,
            in_chans=encoder.channels,
            num_classes=0,
            embed_dim=encoder.embed_dim,
            depth=encoder.depth,
            num_heads=encoder.heads,
            mlp_ratio=encoder.mlp_ratio,
            norm_layer=norm,
        )
        self.encoder.pos_embed.requires_grad_(False)
        self.decoder = _Decoder(encoder, decoder, norm)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The loss over the hidden patches; the `kept` patches with the least noise [B, N] stay visible."""
        order = noise.argsort(1)
        place = order.argsort(1)
        encoder = self.encoder
        x = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
        x = _gather(x, order[:, : self.kept])
        first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1)
        prediction = self.decoder(encoder.norm(encoder.blocks(torch.cat([first, x], 1))), place)
        target = images.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        target = target.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        error = (prediction - (target - mean) / (variance + 1e-6).sqrt()).square().mean(-1)
        hidden = place >= self.kept
        return (error * hidden).sum() / hidden.sum()


class _Decoder(nn.Module):
    """Full self-attention over all tokens, a mask token in place of each hidden one."""

    def __init__(self, encoder: ViTConfig, config: DecoderConfig, norm: partial[nn.LayerNorm]) -> None:
        super().__init__()
        dim = config.embed_dim
        self.embed = nn.Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, encoder.patches + 1, dim), requires_grad=False)
        self.blocks = nn.Sequential(
            *(
                Block(dim, config.heads, config.mlp_ratio, qkv_bias=True, norm_layer=norm)
                for _ in range(config.depth)
            )
        )
        self.norm = norm(dim)
        self.pred = nn.Linear(dim, encoder.patch_values)

    def forward(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Predictions [B, N, outputs] from [B, 1 + n, E]; patch i was token `place[:, i]`, if that is < n."""
        x = self.embed(tokens)
        missing = place.shape[1] + 1 - x.shape[1]
        shuffled = torch.cat([x[:, 1:], self.mask_token.expand(len(x), missing, -1)], 1)
        x = torch.cat([x[:, :1], _gather(shuffled, place)], 1) + self.pos_embed
        return self.pred(self.norm(self.blocks(x))[:, 1:])


def build(ours: MaskedAutoencoder, hidden_share: float) -> TimmMAE:
    """A model with the weights of `ours`, whose decoder is a full one."""
    model = TimmMAE(ours.encoder.config, ours.decoder.config, hidden_share)
    model.load_state_dict(ours.state_dict())
    return model


def training_step(
    model: TimmMAE, batch: tuple[Tensor, Tensor], dtype: torch.dtype, compiled: bool = False
) -> TrainingStep:
    return trainer.training_step(model, model, batch, dtype, compiled)


def _gather(tokens: Tensor, places: Tensor) -> Tensor:
    """Of [B, N, E], those at the places [B, n]."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
