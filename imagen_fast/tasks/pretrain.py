"""From pictures without labels to a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imagen_fast.data import Augmentation, Loader, Source, TooFewImages, split
from imagen_fast.errors import MissingPackage
from imagen_fast.models.batch_norm import take_statistics
from imagen_fast.models.timm_backbone import timm_statistics
from imagen_fast.objectives.pixels import inputs_of
from imagen_fast.tasks.backbone import save_backbone
from imagen_fast.tasks.pictures import draw_curves
from imagen_fast.tasks.probe import HOLDOUT, SPLIT_SEED, evaluate_backbone
from imagen_fast.tasks.recipes import Recipe, recipe_for
from imagen_fast.tasks.session import (
    FOLDER_PRESET,
    PRESETS,
    begin,
    default_folder,
    failed_images,
    fit_config,
    interruptible,
    listing_failures,
    open_data,
    open_logs,
    resolved,
    say,
    total_steps,
)
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.train import FitResult, Run, choose_device, fit, load_checkpoint, load_into, working_type

KIND = "pretrain"
PICTURE = {"masked": "reconstruction.png", "joint": "reconstruction.png", "causal": "completion.png"}
SHOWN_IMAGES = 8
# He et al. 2021, table 8, for a batch of 256; and a rate between those of iGPT's sizes (Chen et al. 2020).
BASE_LR, CAUSAL_LR = 1.5e-4, 1e-3
BETAS = (0.9, 0.95)
CAUSAL_HOLDOUT = 0.1
# For the statistics of batch norms.
SETTLING_IMAGES = 1024


@dataclass
class PretrainResult:
    """What a run left.

    Attributes:
        folder: of the run: `encoder.safetensors`, pictures, logs, checkpoints.
        fitted: steps of this call, seconds, images/s, share of time that waited for data, last loss.
        failed: (path, reason) of the images that could not be read.
        evaluation: figures and what they rest on: bits per dimension of a causal model, `knn` and `linear`
            accuracy where there are labels; None where there is neither.
        notes: what was found, what was left out, and why.
    """

    folder: Path
    fitted: FitResult
    failed: list[tuple[str, str]]
    evaluation: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A run before it starts: settings with nothing left open, and the parts they stand for."""

    settings: PretrainSettings
    whole: Source  # with what is held out, for the evaluation
    source: Source
    held: Source | None
    recipe: Recipe
    device: torch.device
    dtype: torch.dtype

    def objective(self, loader: Loader) -> nn.Module:
        return self.recipe.objective(loader.mean, loader.std, self.settings.seed)

    def loader(
        self,
        source: Source,
        batch_size: int,
        augment: Augmentation | None,
        device: torch.device | str = "cpu",
    ) -> Loader:
        s, side = self.settings, self.recipe.backbone.image_size[0]
        return Loader(source, batch_size, side, augment, s.seed, threads=s.threads, device=device)

    @property
    def augment(self) -> Augmentation | None:
        """None: the views that suit the data."""
        if self.settings.augment is None:
            return self.recipe.augment
        return None if self.settings.augment else Augmentation()


def plan(settings: PretrainSettings) -> Plan:
    """Open the data and fill in every setting that follows from them.

    Raises:
        InvalidInput, DataError: a setting that cannot be; see the message.
    """
    data, whole = open_data(settings.data, settings.image_size)
    if settings.timm_model is not None and whole.channels == 3:
        # So that weights from timm see what they know, and those that are left what timm will give them.
        mean, std = timm_statistics(settings.timm_model)
        whole = replace(whole, mean=mean, std=std)
    causal = settings.objective == "causal"
    holdout = settings.holdout
    if holdout is None:
        holdout = CAUSAL_HOLDOUT if causal else 0.0
    source, held = split(whole, holdout, seed=SPLIT_SEED) if holdout else (whole, None)
    recipe = recipe_for(settings, data, source)
    batch = settings.batch_size or PRESETS.get(data, FOLDER_PRESET)[0]
    device = choose_device(settings.device)
    dtype = working_type(settings.precision, device)
    name = recipe.resolved["model"].replace("/", "-")
    name += "" if settings.objective == "masked" else f"-{settings.objective}"
    settings = resolved(
        settings,
        data=data,
        out=settings.out or default_folder(data, name),
        steps=total_steps(settings, len(source), batch),
        batch_size=batch,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        device=str(device),
        lr=settings.lr or (CAUSAL_LR if causal else BASE_LR * batch / 256),
        holdout=holdout,
        **recipe.resolved,
    )
    return Plan(settings, whole, source, held, recipe, device, dtype)


def pretrain(settings: PretrainSettings) -> PretrainResult:
    """Train a model on pictures alone, and leave its backbone, pictures and figures in the run's folder.

    The objective: masked (He et al. 2021, MAE; Fu et al. 2024, CrossMAE, with the cross decoder; Xie et al.
    2022, SimMIM, of a model of timm), causal (Chen et al. 2020, iGPT, and smaller contexts), or joint. Sets
    PyTorch's global seed. With `settings.resume` the run in `settings.out` goes on exactly where its newest
    checkpoint stands.

    Raises:
        ImagenFastError: a setting, the data or the run cannot be taken; the message is one sentence.
    """
    p = plan(settings)
    s = p.settings
    assert s.batch_size is not None
    assert s.lr is not None
    torch.manual_seed(s.seed)
    with p.loader(p.source, s.batch_size, p.augment, p.device) as loader:
        objective = p.objective(loader)
        facts = {"images": len(p.source), **p.recipe.facts, "mean": loader.mean, "std": loader.std}
        if not s.resume:
            p.recipe.prepare(objective, loader, s.seed)
        run, resume = begin(s, KIND, facts)
        millions = sum(x.numel() for x in objective.parameters()) / 1e6
        say(
            s,
            f"pretraining {s.model}, {s.objective} ({millions:.1f} M parameters in all) on {len(p.source)} "
            f"images of {s.image_size} pixels, patches of {s.patch_size}, {s.device} {s.precision}, "
            f"{s.steps} steps",
        )
        with (
            interruptible(run, "pretrain"),
            listing_failures(run, loader),
            open_logs(run, s, resume) as logs,
        ):
            fitted = fit(
                objective,
                loader,
                fit_config(s, s.lr, BETAS),
                device=p.device,
                dtype=p.dtype,
                run=run,
                resume=resume,
                logs=logs,
                title="pretraining",
                quiet=s.quiet,
            )
        return _finish(p, run, fitted, loader)


def _finish(p: Plan, run: Run, fitted: FitResult, loader: Loader) -> PretrainResult:
    """The backbone, the pictures, the figures."""
    # The float32 weights, which in bf16 differ from those the loop worked with.
    trained = p.objective(loader)
    load_into(trained, load_checkpoint(run.folder).weights, str(run.folder))
    trained.to(p.device)
    result = PretrainResult(run.folder, fitted, [])
    # Before batch norms forget how images with hidden parts were.
    try:
        _draw(p, run, trained)
    except MissingPackage as error:
        result.notes.append(f"no pictures: {error}")
    backbone = p.recipe.trained_backbone(trained)
    normalize = inputs_of(p.recipe.backbone, loader.mean, loader.std).to(p.device)
    some = islice(loader.batches(), min(loader.steps_per_epoch, -(-SETTLING_IMAGES // loader.batch_size)))
    take_statistics(backbone, (normalize(batch.images.to(p.device)) for batch in some))
    save_backbone(run.folder, backbone, loader.mean, loader.std)
    if p.settings.evaluate:
        _evaluate(p, trained, loader, result)
        if result.evaluation:
            run.write("evaluation.json", result.evaluation)
    result.failed = failed_images(run)
    return result


def _evaluate(p: Plan, trained: nn.Module, loader: Loader, result: PretrainResult) -> None:
    s, recipe = p.settings, p.recipe
    figures: dict[str, Any] = {}
    if p.held is not None:
        with (
            p.loader(p.source, loader.batch_size, Augmentation()) as seen,
            p.loader(p.held, loader.batch_size, Augmentation()) as held,
        ):
            figures |= recipe.evaluate(trained, seen, held, p.device)
        if (sentence := recipe.describe(figures)) is not None:
            result.notes.append(sentence)
    if p.source.labels is not None:
        say(s, "evaluating the features")
        try:
            figures |= evaluate_backbone(
                recipe.trained_backbone(trained).to(p.dtype),
                inputs_of(recipe.backbone, loader.mean, loader.std),
                p.whole,
                recipe.backbone.image_size[0],
                p.device,
                holdout=s.holdout or HOLDOUT,
                batch_size=loader.batch_size,
                threads=s.threads,
            )
        except (MissingPackage, TooFewImages) as error:
            result.notes.append(f"no evaluation: {error}")
    result.evaluation = figures or None


def _draw(p: Plan, run: Run, trained: nn.Module) -> None:
    # What training never saw, where there is any.
    with p.loader(p.held or p.source, SHOWN_IMAGES, Augmentation()) as loader:
        images = loader.at(0).images.to(p.device)
    p.recipe.draw(trained, images, run.folder / PICTURE[p.settings.objective])
    draw_curves(run.folder / "metrics.jsonl", run.folder / "loss.png")
