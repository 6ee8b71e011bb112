"""Images drawn from pixel transformers: in raster order beside transformers' generate, and by anti-diagonals.

In raster order ours has the weights of transformers' ImageGPT, and its logits. By anti-diagonals, as the
context of a quadrant lets it, ours is compared with itself in raster order: no other implementation is known.
All in float32: a call is a whole batch of images, drawn from nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from imagen_fast.benchmarks import pixel_model, sample_check, work
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.correctness import Verdict
from imagen_fast.benchmarks.measure import Call, Effort
from imagen_fast.benchmarks.peers import TRANSFORMERS, compiler_absence
from imagen_fast.benchmarks.pixel_model import imagegpt_config
from imagen_fast.benchmarks.training import COMPILED
from imagen_fast.kernels.cost import Work
from imagen_fast.models import PixelConfig
from imagen_fast.models.imagegpt import load_imagegpt
from imagen_fast.models.sampling import generate, steps
from imagen_fast.ops import Quadrant

# A batch takes seconds, a thousand steps long, and is its own warm-up.
QUICK = Effort(warmup=0, least=1, most=3, seconds=4)
QUICK_WAVEFRONT = Effort(warmup=1, least=3, most=9, seconds=3)
FULL = Effort(warmup=1, least=3, most=15, seconds=60)

MODELS = {
    "tiny": imagegpt_config(width=64, depth=4, heads=2),
    "small": imagegpt_config(width=256, depth=8, heads=8),
}
BATCH = 16
SIDES = (32, 64)


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    for name, config in MODELS.items():
        if not quick or name == "tiny":
            yield raster(f"sample {name}", config, BATCH, device, quick, QUICK if quick else FULL)
    for side in SIDES[: 1 if quick else None]:
        for name, config in MODELS.items():
            if not quick or name == "small":
                wide = replace(config, image_size=(side, side))
                yield wavefront(f"sample {name}", wide, device, QUICK_WAVEFRONT if quick else FULL)


def raster(
    name: str, config: PixelConfig, images: int, device: torch.device, quick: bool, effort: Effort
) -> Contest:
    absent = [TRANSFORMERS.absence(), compiler_absence(COMPILED, device.type, quick)]
    missing = tuple(absence for absence in absent if absence is not None)
    case = f"{name} {_sizes(config)} B{images} raster"
    return Contest(
        case,
        "sample",
        partial(_raster, case, config, images, device, {absence.peer for absence in missing}),
        effort,
        missing,
    )


def wavefront(name: str, config: PixelConfig, device: torch.device, effort: Effort) -> Contest:
    case = f"{name} {_sizes(config)} B1 quadrant"
    return Contest(case, "sample", partial(_wavefront, case, config, device), effort)


def _sizes(config: PixelConfig) -> str:
    height, width = config.image_size
    return f"{height}x{width}"


def _raster(
    case: str, config: PixelConfig, images: int, device: torch.device, missing: set[str]
) -> Iterator[Contender]:
    with_theirs = TRANSFORMERS.name not in missing

    @cache
    def their_model() -> Any:
        from imagen_fast.benchmarks.peers import imagegpt

        return imagegpt.random_model(config).to(device).eval()

    def prepare() -> tuple[Call, Verdict]:
        if with_theirs:
            from imagen_fast.benchmarks.peers import imagegpt

            ours = load_imagegpt(their_model()).to(device).eval()
            reference = partial(imagegpt.logits, their_model())
        else:
            ours = pixel_model.random_model(config).to(device).eval()
            reference = partial(sample_check.plain, ours)
        return partial(generate, ours, images), sample_check.cached_logits(ours, reference)

    yield Contender(case, OURS, prepare, later_facts=partial(facts, config, images))
    if not with_theirs:
        return

    def prepare_theirs(compiled: bool) -> tuple[Call, Verdict]:
        from imagen_fast.benchmarks.peers import imagegpt

        model = imagegpt.compiled(their_model()) if compiled else their_model()
        verdict = sample_check.their_cached_logits(model, config)
        return partial(imagegpt.generate, model, images, config.tokens), verdict

    # Its static cache, which does not grow, is no rival: see `peers.imagegpt.generate`.
    more = {"cache": "DynamicCache; StaticCache is silently wrong for this model"}
    least = partial(facts, config, images)
    yield Contender(case, "transformers generate", partial(prepare_theirs, False), more, later_facts=least)
    if COMPILED not in missing:
        name = "transformers generate compiled"
        yield Contender(case, name, partial(prepare_theirs, True), more, later_facts=least)


def _wavefront(case: str, config: PixelConfig, device: torch.device) -> Iterator[Contender]:
    for name, context in ((OURS, Quadrant()), (f"{OURS} raster", config.context)):
        own = replace(config, context=context)
        yield Contender(case, name, partial(_prepare_own, own, device), later_facts=partial(facts, own, 1))


def _prepare_own(config: PixelConfig, device: torch.device) -> tuple[Call, Verdict]:
    model = pixel_model.random_model(config).to(device).eval()
    small = replace(config, image_size=sample_check.GRID)
    checked = pixel_model.random_model(small).to(device).eval()
    verdict = sample_check.one_by_one(checked) & sample_check.cached_logits(
        checked, partial(sample_check.plain, checked)
    )
    return partial(generate, model, 1), verdict


def facts(config: PixelConfig, images: int) -> dict[str, Any]:
    """Sizes, and the least that the case asks of memory, matrix units and exponentials."""
    layers = work.pixel_transformer(config)
    operations, exponentials = work.forward(layers)
    weights, count = work.weights(layers), sum(1 for _ in steps(config))
    # Keys and values in float32, of all layers.
    token = 2 * config.embed_dim * config.depth * 4
    least = Work(
        bytes=4 * count * weights + images * _read_keys(config) * token,
        operations=images * operations,
        exponentials=images * (exponentials + config.tokens * config.choices),
    )
    return {
        "images": images,
        "image": _sizes(config),
        "colours": config.choices,
        "model": pixel_model.describe(config),
        "precision": "fp32",
        "steps": count,
        **work.stated(least, "fp32", footprint=4 * weights + images * config.tokens * token),
    }


def _read_keys(config: PixelConfig) -> int:
    """Keys that are read, each once in a step however many of its queries see it."""
    seen = config.attended.window(config.grid).visible()
    return sum(int(seen[places].any(0).sum()) for places in steps(config))
