from __future__ import annotations

import math

import pytest
import torch

from imagen_fast.data import Batch
from imagen_fast.data.masks import masks_from_noise
from imagen_fast.errors import InvalidInput
from imagen_fast.models import DecoderConfig, pixel_config, vit_config
from imagen_fast.objectives import CausalObjective, JointObjective, MaskedConfig, Weights
from imagen_fast.ops.patches import patchify, unpatchify


def images(count=3, channels=3, side=8):
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)


def batch(pixels):
    return Batch(pixels, None, torch.arange(len(pixels)))


def joint(loss="mse", weights=None, decoder="full"):
    torch.manual_seed(0)
    return JointObjective(
        vit_config("nano", image_size=(8, 8), patch_size=2),
        DecoderConfig(decoder, 32, 1, 2),
        MaskedConfig(0.5, loss=loss, levels=8 if loss == "categorical" else 256),
        (0.5,) * 3,
        (0.2,) * 3,
        weights=weights,
    )


def test_the_loss_is_the_mean_over_values_in_nats_and_the_metric_in_bits():
    objective = CausalObjective(pixel_config("nano", image_size=(8, 8), levels=8))
    pixels = images()
    output = objective(batch(pixels), 0)
    values = objective.model.symbols(pixels)
    log_p = objective.model(values).gather(-1, values.long()[..., None])
    torch.testing.assert_close(output.loss, -log_p.mean())
    torch.testing.assert_close(output.metrics["bits_per_dim"], output.loss.detach() / math.log(2))


@pytest.mark.parametrize("loss", ["mse", "categorical"])
def test_the_joint_loss_is_the_weighted_sum(loss):
    objective = joint(loss, Weights(masked=0.5, causal=3.0))
    pixels = images()
    output = objective(batch(pixels), step=4)
    masked = super(JointObjective, objective).forward(batch(pixels), 4).loss
    causal = objective.causal_loss(pixels)
    torch.testing.assert_close(output.loss, 0.5 * masked + 3.0 * causal)
    torch.testing.assert_close(output.metrics["masked_loss"], masked.detach())
    torch.testing.assert_close(output.metrics["causal_loss"], causal.detach())


def test_both_losses_train_the_one_backbone():
    objective = joint()
    pixels = images()
    encoder = objective.model.encoder
    masks = masks_from_noise(torch.rand(3, 16), 0.5)
    for loss in (objective.causal_loss(pixels), objective.loss(pixels, masks).loss):
        gradients = torch.autograd.grad(loss, encoder.blocks[0].attn.qkv.weight)
        assert gradients[0].abs().sum() > 0


@torch.no_grad()
def test_a_patch_is_predicted_from_those_before_it():
    encoder = joint().double().model.encoder
    pixels = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    before = encoder.predictive_features(pixels)
    assert before.shape == (1, 16, 96)
    patches = patchify(pixels, 2)
    for place in range(16):
        changed = patches.clone()
        changed[:, place] += 1
        differs = (encoder.predictive_features(unpatchify(changed, 2, 8, 8)) != before).any(-1)[0]
        assert differs.tolist() == [other > place for other in range(16)]


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_weights_out_of_range(weights):
    with pytest.raises(InvalidInput, match="both weights must be above 0"):
        Weights(*weights)
