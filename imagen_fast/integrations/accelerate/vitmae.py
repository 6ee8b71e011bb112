"""The loss of transformers' ViTMAE, straight from the image."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor
from transformers.models.vit_mae import modeling_vit_mae as theirs
from transformers.utils.generic import can_return_tuple

from imagen_fast.integrations.accelerate.swaps import ByClass, Swap
from imagen_fast.ops import masked_pixel_mse
from imagen_fast.ops.dispatch import transformed


class ViTMAEForPreTraining(theirs.ViTMAEForPreTraining):
    # transformers' Trainer drops what the signature does not name.
    @functools.wraps(theirs.ViTMAEForPreTraining.forward)
    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor | None = None,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **others: Any,
    ) -> theirs.ViTMAEForPreTrainingOutput:
        others |= {"noise": noise, "interpolate_pos_encoding": interpolate_pos_encoding}
        if transformed():
            return super().forward(pixel_values, **others)
        encoded = self.vit(pixel_values, **others)
        predicted = self.decoder(
            encoded.last_hidden_state, encoded.ids_restore, interpolate_pos_encoding=interpolate_pos_encoding
        ).logits
        images: Any = pixel_values
        loss = masked_pixel_mse(
            predicted, images, encoded.mask.bool(), normalise=self.config.norm_pix_loss, eps=1e-6
        )
        return theirs.ViTMAEForPreTrainingOutput(
            loss=loss,
            logits=predicted,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


def _own_loss(model: Any) -> str | None:
    if {"forward_loss", "patchify"} & vars(model).keys():
        return "its loss is its own, and not that of its class"
    return None


def _without_positions(model: Any) -> str | None:
    """transformers makes a model of a config so: what its decoder sets is overwritten (seen in 5.24)."""
    positions = model.decoder.decoder_pos_embed
    if positions.requires_grad or positions.is_meta or positions.any():
        return None
    return (
        "its decoder has no positions, all of decoder_pos_embed is 0: "
        f"model.decoder.initialize_weights({positions.shape[1] - 1}) sets them"
    )


SWAPS: list[Swap] = [
    ByClass("loss", theirs.ViTMAEForPreTraining, ViTMAEForPreTraining, _own_loss, noted=_without_positions)
]
