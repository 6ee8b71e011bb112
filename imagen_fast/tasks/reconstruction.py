"""What a masked autoencoder makes of an image: the hidden patches, filled in."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.data.masks import Masks
from imagen_fast.objectives import MaskedObjective, SimMIMObjective
from imagen_fast.ops.patches import chosen_patches, patchify, unpatchify

# That of the loss, whose normalisation is undone here.
EPS = 1e-6


@torch.inference_mode()
def reconstruct(objective: MaskedObjective, images: Tensor, masks: Masks) -> Tensor:
    """Images with their hidden patches as predicted and their visible ones as they are.

    The mse loss predicts pixels normalised per patch: they get the mean and deviation of the true patch
    back, as in MAE's demonstration. The categorical loss gives a distribution: its expected level is shown.

    Args:
        images: uint8 [B, C, H, W].

    Returns:
        float32 [B, C, H, W] on the scale 0..1.
    """
    objective.eval()
    normal = objective.normalize(images)
    config = objective.model.encoder.config
    tokens = objective.model.encoder.forward_features(normal, masks.visible)
    features = objective.model.decoder.features(tokens, masks.visible, masks.hidden)
    prediction = objective.model.decoder.pred(features)
    if objective.config.loss == "categorical":
        level = torch.linspace(0, 1, objective.config.levels, device=images.device)
        filled = prediction.exp() @ level
        shown = images.float() / 255
    else:
        variance, mean = torch.var_mean(
            chosen_patches(normal, config.patch_size, masks.hidden), -1, keepdim=True
        )
        filled = prediction.float() * (variance + EPS).sqrt() + mean
        shown = normal
    patches = patchify(shown, config.patch_size)
    where = masks.hidden[..., None].expand_as(filled)
    whole = unpatchify(patches.scatter(1, where, filled), config.patch_size, *config.image_size)
    return whole.clamp(0, 1) if objective.config.loss == "categorical" else objective.normalize.undo(whole)


@torch.inference_mode()
def repaint(objective: SimMIMObjective, images: Tensor, hidden: Tensor) -> Tensor:
    """The same of an objective that predicts pixels as they are: float32 [B, C, H, W] on the scale 0..1.

    Args:
        images: uint8 [B, C, H, W].
        hidden: bool [B, 1, H, W], true where a pixel is hidden.
    """
    objective.eval()
    normal = objective.normalize(images)
    return objective.normalize.undo(torch.where(hidden, objective.model(normal, hidden).float(), normal))
