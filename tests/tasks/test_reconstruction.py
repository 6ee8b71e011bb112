from __future__ import annotations

import pytest
import torch

from imagen_fast.data.masks import Masks, hidden_pixels
from imagen_fast.models import DecoderConfig, vit_config
from imagen_fast.objectives import MaskedConfig, MaskedObjective
from imagen_fast.ops.patches import chosen_patches
from imagen_fast.tasks.reconstruction import reconstruct


@pytest.fixture
def case():
    """An objective of the loss asked for, images, and masks that hide the patches with odd numbers."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    number = torch.arange(4).expand(2, -1)
    masks = Masks(number[:, ::2], number[:, 1::2])

    def make(loss):
        encoder = vit_config("nano", image_size=(8, 8), patch_size=4)
        decoder = DecoderConfig(embed_dim=32, depth=1, heads=2)
        return MaskedObjective(encoder, decoder, MaskedConfig(0.5, loss=loss), (0.5,) * 3, (0.2,) * 3)

    return make, images, masks


@pytest.mark.parametrize("loss", ["mse", "categorical"])
def test_visible_pixels_stay_and_hidden_ones_are_predicted(case, loss):
    make, images, masks = case
    rebuilt = reconstruct(make(loss), images, masks)
    hidden = hidden_pixels(masks, (2, 2), 4).expand_as(images)
    truth = images.float() / 255
    assert hidden.float().mean() == 0.5
    torch.testing.assert_close(rebuilt[~hidden], truth[~hidden], atol=1e-6, rtol=0)
    assert (rebuilt[hidden] - truth[hidden]).abs().mean() > 0.01
    assert 0 <= rebuilt.min() <= rebuilt.max() <= 1


def test_a_perfect_prediction_gives_the_image_back(case):
    """What the loss calls perfect, the normalised target itself, is the true image."""
    make, images, masks = case
    objective = make("mse")

    class Perfect(torch.nn.Module):
        def forward(self, features):
            target = chosen_patches(objective.normalize(images), 4, masks.hidden)
            variance, mean = torch.var_mean(target, -1, keepdim=True)
            return (target - mean) / (variance + 1e-6).sqrt()

    objective.model.decoder.pred = Perfect()
    torch.testing.assert_close(reconstruct(objective, images, masks), images / 255, atol=1e-5, rtol=0)
