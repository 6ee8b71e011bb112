from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models.imagegpt import load_imagegpt
from imagen_fast.models.sampling import Generation

transformers = pytest.importorskip("transformers")


def theirs(**changes):
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 41, **changes}
    model = transformers.ImageGPTForCausalImageModeling(transformers.ImageGPTConfig(**sizes)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.15)
    return model


@torch.no_grad()
def their_logits(model, pixels):
    """Of pixel n, from a sequence that begins with the start token."""
    start = torch.full((len(pixels), 1), model.config.vocab_size - 1)
    return model(torch.cat([start, pixels[:, :-1]], 1), use_cache=False).logits


def our_logits(model, tokens):
    return torch.nn.functional.linear(tokens, model.head.project.weight, model.head.project.bias)


def test_logits_are_equal():
    model = theirs()
    pixels = torch.randint(0, 40, (3, 64))
    ours = load_imagegpt(model).eval()
    with torch.no_grad():
        logits = our_logits(ours, ours.forward_features(pixels[..., None]))
    torch.testing.assert_close(logits, their_logits(model, pixels), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_with_our_static_cache_they_are_equal_too():
    model = theirs()
    pixels = torch.randint(0, 40, (2, 64))
    ours = load_imagegpt(model).eval()
    state = Generation(ours, pixels[..., None])
    expected = their_logits(model, pixels)
    for step, places in enumerate(state.steps):
        logits = our_logits(ours, state.tokens(step))
        torch.testing.assert_close(logits, expected[:, places], rtol=1e-5, atol=1e-4)
        state.know(step, pixels[:, places, None])


def test_a_saved_folder_with_its_palette(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path)
    clusters = np.linspace(-1, 1, 40 * 3).reshape(40, 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters.tolist()}))
    ours = load_imagegpt(tmp_path)
    live = load_imagegpt(model)
    for name, value in live.state_dict().items():
        if name != "symbols.palette":
            assert torch.equal(value, ours.state_dict()[name]), name
    assert ours.symbols.palette[0].tolist() == [0, 2, 4]
    assert ours.symbols.palette[-1].tolist() == [251, 253, 255]
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert ours.symbols(image).shape == (1, 64, 1)


def test_what_cannot_be_converted(tmp_path):
    with pytest.raises(InvalidInput, match="activation_function = quick_gelu"):
        load_imagegpt(theirs(activation_function="relu"))
    with pytest.raises(InvalidInput, match="60 positions are no square image"):
        load_imagegpt(theirs(n_positions=60))
    with pytest.raises(InvalidInput, match=r"clusters must be \[40, 3\]"):
        load_imagegpt(theirs(), np.zeros((7, 3)))
    with pytest.raises(CheckpointError, match="no folder of a saved ImageGPT"):
        load_imagegpt(tmp_path)
    with pytest.raises(CheckpointError, match="no ImageGPT but 'vit_mae'"):
        load_imagegpt(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(num_hidden_layers=1)))
