"""Does pretraining pay, and does a model learn what digits look like?

Handwritten digits, ten labels a class, with masked pretraining and without; one pretraining serves all seeds,
which draw the labels, the new weights and the order of the batches. Then the causal objective on the same
digits: how likely it finds those it never saw, and how it completes them.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from imagen_fast.tasks.classification import finetune
from imagen_fast.tasks.pictures import draw_comparison
from imagen_fast.tasks.pretrain import pretrain
from imagen_fast.tasks.settings import FinetuneSettings, PretrainSettings
from imagen_fast.train.checkpoint import write_atomically

# A fifth of the digits is never seen, with or without labels, until the accuracies are measured.
HOLDOUT = 0.2
LABELS_PER_CLASS = 10
SEEDS = (0, 1, 2)
PRETRAIN_STEPS, FINETUNE_STEPS, CAUSAL_STEPS = 2500, 200, 600


@dataclass(frozen=True)
class Contender:
    """One way to a classifier: from the pretrained backbone or not, and for how many steps."""

    name: str
    pretrained: bool
    steps: int


CONTENDERS = (
    Contender("pretrained without labels", True, FINETUNE_STEPS),
    Contender("from scratch", False, FINETUNE_STEPS),
    Contender("from scratch, three times the steps", False, 3 * FINETUNE_STEPS),
)


@dataclass
class DemoResult:
    """Accuracies (0..1, of the last weights, on held-out digits) and seconds, by contender and seed.

    `bits_per_dim` of held-out digits, by model; `causal_seconds` is what the causal run took.
    """

    folder: Path
    pretrain_seconds: float
    accuracies: dict[str, list[float]]
    seconds: dict[str, list[float]]
    bits_per_dim: dict[str, float]
    causal_seconds: float = 0.0
    seeds: tuple[int, ...] = SEEDS
    labels_per_class: int = LABELS_PER_CLASS


def demo(out: str | Path, quiet: bool = False) -> DemoResult:
    """Pretrain on digits, fine-tune with few labels, the same from scratch; then learn digits by pixels.

    Pictures and `demo.json` are left in `out`.

    What an earlier demo left in `out` is replaced.
    """
    folder = Path(out)
    for name in ("pretrain", "runs", "causal"):
        shutil.rmtree(folder / name, ignore_errors=True)
    began = time.perf_counter()
    pretrain(
        PretrainSettings(
            data="digits",
            out=str(folder / "pretrain"),
            steps=PRETRAIN_STEPS,
            batch_size=64,
            lr=1e-3,
            mask_ratio=0.62,
            decoder="cross",
            predict=1.0,
            holdout=HOLDOUT,
            tensorboard=False,
            quiet=quiet,
        )
    )
    pretrain_seconds = time.perf_counter() - began
    result = DemoResult(folder, pretrain_seconds, {}, {}, {})
    for contender in CONTENDERS:
        for seed in SEEDS:
            began = time.perf_counter()
            run = folder / "runs" / f"{contender.name.replace(',', '').replace(' ', '-')}-{seed}"
            trained = finetune(
                FinetuneSettings(
                    data="digits",
                    out=str(run),
                    from_run=str(folder / "pretrain") if contender.pretrained else None,
                    model=None if contender.pretrained else "nano",
                    labels_per_class=LABELS_PER_CLASS,
                    holdout=HOLDOUT,
                    steps=contender.steps,
                    batch_size=64,
                    # Of 5e-4 to 4e-3 the best from scratch, at either length.
                    lr=1e-3,
                    seed=seed,
                    # The weights at the end count, so that nothing is chosen by the held-out digits.
                    eval_every=contender.steps,
                    tensorboard=False,
                    quiet=True,
                )
            )
            result.accuracies.setdefault(contender.name, []).append(trained.last_accuracy)
            result.seconds.setdefault(contender.name, []).append(time.perf_counter() - began)
    _learn_pixels(result, quiet)
    _leave(result)
    return result


def _learn_pixels(result: DemoResult, quiet: bool) -> None:
    began = time.perf_counter()
    causal = pretrain(
        PretrainSettings(
            data="digits",
            objective="causal",
            out=str(result.folder / "causal"),
            steps=CAUSAL_STEPS,
            batch_size=64,
            lr=2e-3,
            holdout=HOLDOUT,
            tensorboard=False,
            quiet=quiet,
        )
    )
    result.causal_seconds = time.perf_counter() - began
    figures = causal.evaluation or {}
    names = {
        "pixel transformer": "bits_per_dim",
        "every pixel by itself": "bits_per_dim_independent",
        "uniform": "bits_per_dim_uniform",
    }
    result.bits_per_dim = {name: figures[key] for name, key in names.items()}


def _leave(result: DemoResult) -> None:
    for run, picture in (("pretrain", "reconstruction.png"), ("causal", "completion.png")):
        shutil.copy(result.folder / run / picture, result.folder / picture)
    draw_comparison(result.folder / "comparison.png", result.accuracies, LABELS_PER_CLASS)
    figures = {
        "labels_per_class": LABELS_PER_CLASS,
        "pretrainings": 1,
        "seeds": list(SEEDS),
        "pretrain_seconds": result.pretrain_seconds,
        "accuracies": result.accuracies,
        "seconds": result.seconds,
        "mean_accuracy": {name: mean(values) for name, values in result.accuracies.items()},
        "bits_per_dim": result.bits_per_dim,
        "causal_seconds": result.causal_seconds,
    }
    write_atomically(result.folder / "demo.json", json.dumps(figures, indent=2) + "\n")
