"""How the cost grows with the work: a contest for each point of a curve, ours beside the chief peers.

`imagen-fast bench SUITE --curves` holds them; `imagen-fast bench report FILE --pictures FOLDER` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from imagen_fast.benchmarks import attention, classification, decode, dropin, likelihood, mae, sample, train
from imagen_fast.benchmarks.attention_case import BOTH
from imagen_fast.benchmarks.attention_case import Case as Attention
from imagen_fast.benchmarks.contender import OURS, Contender
from imagen_fast.benchmarks.contest import Contest
from imagen_fast.benchmarks.likelihood_case import Case as Likelihood
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.pixel_model import imagegpt_config
from imagen_fast.data.decode.batch import processors
from imagen_fast.errors import InvalidInput
from imagen_fast.models import vit_config

EFFORT = Effort(warmup=1, least=3, most=15, seconds=1)
SLOW = Effort(warmup=1, least=2, most=5, seconds=4)

# Of each suite, the peers that a curve has; what else is faster or slower is in the suite itself.
CHIEF = {
    "attention": ("SDPA", "FlexAttention compiled", "varlen_attn", "flash-attn"),
    "pixels": ("full logits", "linear_cross_entropy", "Liger", "Cut Cross-Entropy", "QuACK"),
}

TOKENS = (16, 32, 64, 128, 256, 512, 1024)
HIDDEN_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (1, 4, 16, 64, 256, 1024)}
IMAGES = {"cpu": 4, "cuda": 64}
HEADS, WIDTH = 12, 64

ROWS = {"cpu": (1024, 4096, 16384, 65536), "cuda": (4096, 16384, 65536, 262144, 1048576)}
LEVELS = (16, 64, 256, 1024, 4096)

# Width and height; images of a batch.
SIZES = ((160, 120), (320, 240), (640, 480), (1280, 960), (2560, 1920))
DECODED = 16

SIDES = (112, 160, 224, 320)
# None of STEPS: a point that lies on both curves would be measured twice, and be two cases of one name.
TRAINED = {"cpu": 2, "cuda": 128}
STEPS = {"cpu": (1, 4, 16), "cuda": (16, 64, 256)}

DRAWN = (1, 4, 16, 64)


def contests(suite: str, device: torch.device, quick: bool) -> Iterator[Contest]:
    """A quick run has every other point.

    Raises:
        InvalidInput: the suite has no curves on this device.
    """
    curves = CURVES[suite]
    if suite == "decode" and device.type == "cuda":
        raise InvalidInput("the suite decode has curves on a CPU only")
    for curve in curves:
        points = list(curve(device))
        yield from points[:: 2 if quick else 1]


def point(contest: Contest, name: str, grows: str, value: float) -> Contest:
    """A contest as a point of the curve `name`, at which what grows is this large."""
    return replace(
        contest,
        contenders=partial(_marked, contest.contenders, {"name": name, "x": grows, "value": value}),
    )


def _marked(contenders: Callable[[], Sequence[Contender]], curve: dict[str, Any]) -> Iterator[Contender]:
    for contender in contenders():
        name = contender.implementation
        # A case of its own in the suite; of a curve a line of its own.
        if name == OURS and contender.facts.get("compiled"):
            name = f"{OURS} compiled"
        yield replace(contender, implementation=name, facts=contender.facts | {"curve": curve})


# --- attention ----------------------------------------------------------------------------------------


def attention_tokens(device: torch.device) -> Iterator[Contest]:
    images = IMAGES[device.type]
    for n in TOKENS:
        case = Attention("dense", images, n, n, HEADS, WIDTH, "bf16", device)
        yield _attention(case, f"attention by tokens, B{images} H{HEADS} D{WIDTH} bf16", "tokens", n)


def attention_batch(device: torch.device) -> Iterator[Contest]:
    n = attention.TOKENS
    for images in BATCHES[device.type]:
        case = Attention("dense", images, n, n, HEADS, WIDTH, "bf16", device)
        yield _attention(case, f"attention by batch, N{n} H{HEADS} D{WIDTH} bf16", "images", images)


def attention_hidden_share(device: torch.device) -> Iterator[Contest]:
    n, images = attention.TOKENS, 4 * IMAGES[device.type]
    name = f"attention by hidden share, visible rows in place, B{images} N{n} H{HEADS} D{WIDTH} bf16"
    for share in HIDDEN_SHARES:
        case = attention.in_place("visible", images, n, HEADS, WIDTH, "bf16", device, share)
        yield _attention(case, name, "hidden share", share)


def _attention(case: Attention, name: str, grows: str, value: float) -> Contest:
    wanted = (r for r in attention.rivals(case.device.type, quick=True) if r.name in CHIEF["attention"])
    return point(attention.contest(case, BOTH, tuple(wanted), EFFORT), f"{name}, {BOTH}", grows, value)


# --- pixels -------------------------------------------------------------------------------------------


def likelihood_rows(device: torch.device) -> Iterator[Contest]:
    width, levels = likelihood.CPU_CASES[0]
    for rows in ROWS[device.type]:
        yield _likelihood(rows, width, levels, device, f"by rows, E{width} V{levels}", "rows", rows)


def likelihood_levels(device: torch.device) -> Iterator[Contest]:
    width, rows = likelihood.CPU_CASES[0][0], ROWS[device.type][2]
    for levels in LEVELS:
        yield _likelihood(rows, width, levels, device, f"by levels, M{rows} E{width}", "levels", levels)


def _likelihood(
    rows: int, width: int, levels: int, device: torch.device, name: str, grows: str, value: int
) -> Contest:
    case = Likelihood(rows, width, levels, "bf16", device, checked_rows=rows)
    wanted = (r for r in likelihood.rivals(device.type, quick=True) if r.name in CHIEF["pixels"])
    contest = likelihood.contest(case, BOTH, tuple(wanted), EFFORT)
    return point(contest, f"pixel cross-entropy {name} bf16, {BOTH}", grows, value)


# --- decoding -----------------------------------------------------------------------------------------


def decode_size(device: torch.device) -> Iterator[Contest]:
    for width, height in SIZES:
        contest = decode.contest(f"{width}x{height}", (width, height), DECODED, EFFORT)
        yield point(contest, f"decode by image size, B{DECODED}, one thread", "pixels", width * height)


def decode_threads(device: torch.device) -> Iterator[Contest]:
    width, height = decode.SMALL
    most = processors()
    for threads in sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most}):
        images = DECODED * most
        contest = decode.contest(f"{width}x{height}", decode.SMALL, images, EFFORT, threads)
        yield point(contest, f"decode by threads, {width}x{height} B{images}", "threads", threads)


# --- whole models -------------------------------------------------------------------------------------


def train_size(device: torch.device) -> Iterator[Contest]:
    batch = TRAINED[device.type]
    for side in SIDES:
        yield _train(side, batch, device, f"mae tiny by image size, B{batch}", "pixels", side * side)


def train_batch(device: torch.device) -> Iterator[Contest]:
    side = train.vit_config("tiny").image_size[0]
    for batch in STEPS[device.type]:
        yield _train(side, batch, device, f"mae tiny by batch, {side}x{side}", "images", batch)


def _train(side: int, batch: int, device: torch.device, name: str, grows: str, value: int) -> Contest:
    config = vit_config("tiny", image_size=(side, side))
    checked = batch if device.type == "cuda" else min(batch, 2)
    workload = mae.Workload(config, batch, device, checked)
    contest = train.contest(f"mae tiny {side}x{side} B{batch}", workload, quick=True, cross=False)
    return point(replace(contest, effort=SLOW), f"{name}, step", grows, value)


def dropin_size(device: torch.device) -> Iterator[Contest]:
    batch = TRAINED[device.type]
    for side in SIDES:
        config = vit_config("small", image_size=(side, side))
        case = dropin.vit(f"vit small {side}x{side}", classification.Workload(config, batch, device))
        contest = replace(dropin.contest(case, torch.bfloat16, quick=True), effort=SLOW)
        yield point(contest, f"vit small by image size, B{batch} bf16, step", "pixels", side * side)


def sample_batch(device: torch.device) -> Iterator[Contest]:
    side = 16
    config = imagegpt_config(width=64, depth=4, heads=2, side=side)
    for images in DRAWN:
        contest = sample.raster("sample tiny", config, images, device, quick=True, effort=SLOW)
        yield point(contest, f"sample tiny by batch, {side}x{side} raster", "images", images)


Curve = Callable[[torch.device], Iterator[Contest]]

CURVES: dict[str, tuple[Curve, ...]] = {
    "attention": (attention_tokens, attention_batch, attention_hidden_share),
    "pixels": (likelihood_rows, likelihood_levels),
    "decode": (decode_size, decode_threads),
    "train": (train_size, train_batch),
    "dropin": (dropin_size,),
    "sample": (sample_batch,),
}
