"""When sampling counts as correct: logits that a cache helped to make, beside those of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.models import PixelConfig, PixelTransformer
from imagen_fast.models.sampling import Generation, generate
from imagen_fast.ops import use_backend

SEED = 1
IMAGES = 2
# What two correct ways of computing logits in float32 may differ by, absolute.
BOUND = 1e-4

# Their check draws so many pixels, each of which costs them as much as in a whole image.
DRAWN = 128
# Where a whole image, one pixel at a time, would take longer than all that is timed.
GRID = (12, 9)

Logits = Callable[[Tensor], Tensor]
"""From pixels [B, N] to the logits of each, given those before it: [B, N, V]."""


@torch.inference_mode()
def plain(model: PixelTransformer, pixels: Tensor) -> Tensor:
    """Of ours, on the reference back-end; logarithms of probabilities, which are logits too."""
    with use_backend("reference"):
        return model(pixels[..., None])[..., 0, :]


@torch.inference_mode()
def cached_logits(model: PixelTransformer, reference: Logits) -> Verdict:
    """Step by step, ours tells every value of given images as the reference does, and draws what exists."""
    config, device = model.config, model.pos_embed.device
    draws = torch.Generator().manual_seed(SEED)
    given = torch.randint(config.choices, (IMAGES, config.tokens), generator=draws).to(device)
    expected = reference(given).log_softmax(-1)
    state = Generation(model, given[..., None].clone())
    worst, legal = torch.zeros((), device=device), True
    for step, places in enumerate(state.steps):
        found = model.head.log_probabilities(model.head.hidden(state.tokens(step)))[..., 0, :]
        worst = torch.maximum(worst, (found - expected[:, places]).abs().max())
        state.know(step, given[:, places, None])
    drawn = generate(model, 1, seed=SEED)
    legal = bool((drawn >= 0).all() and (drawn < config.choices).all())
    return _within(float(worst), "cached beside uncached") & Verdict(legal, {"values in range": legal})


@torch.inference_mode()
def one_by_one(model: PixelTransformer) -> Verdict:
    """Steps of several pixels draw the image that a pixel at a time draws from the same seed."""
    equal = torch.equal(
        generate(model, IMAGES, seed=SEED), generate(model, IMAGES, seed=SEED, one_by_one=True)
    )
    return Verdict(equal, {"as a pixel at a time": equal})


@torch.inference_mode()
def their_cached_logits(model: nn.Module, config: PixelConfig) -> Verdict:
    """The logits that transformers' generate draws from are those of the whole sequence."""
    from imagen_fast.benchmarks.peers import imagegpt

    count = min(DRAWN, config.tokens)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        told = imagegpt.generate(model, IMAGES, count, output_logits=True, return_dict_in_generate=True)
    found = torch.stack(told["logits"], 1)  # type: ignore[arg-type]
    expected = imagegpt.logits(model, told["sequences"][:, 1:])
    worst = float((found.log_softmax(-1) - expected.log_softmax(-1)).abs().max())
    return _within(worst, "cached beside uncached")


def _within(worst: float, what: str) -> Verdict:
    # A NaN is within no bound.
    return Verdict(worst <= BOUND, {what: {"error": worst, "bound": BOUND}})
