"""From pictures without labels to a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from imagen_fast.data import Augmentation, Loader, Source, TooFewImages, split
from imagen_fast.errors import MissingPackage
from imagen_fast.models import DecoderConfig, ViTConfig, decoder_config, vit_config
from imagen_fast.objectives import MaskedConfig, MaskedObjective
from imagen_fast.tasks.backbone import save_backbone
from imagen_fast.tasks.pictures import draw_curves, draw_reconstructions
from imagen_fast.tasks.probe import HOLDOUT, SPLIT_SEED, evaluate_backbone
from imagen_fast.tasks.reconstruction import hidden_pixels, reconstruct
from imagen_fast.tasks.session import (
    FOLDER_IMAGE_SIZE,
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
SHOWN_IMAGES = 8
# He et al. 2021, table 8; the learning rate is for a batch of 256.
BASE_LR = 1.5e-4
BETAS = (0.9, 0.95)


@dataclass
class PretrainResult:
    """What a run left.

    Attributes:
        folder: of the run: `encoder.safetensors`, pictures, logs, checkpoints.
        fitted: steps of this call, seconds, images/s, share of time that waited for data, last loss.
        failed: (path, reason) of the images that could not be read.
        evaluation: `knn` and `linear` accuracy and what they rest on; None without labels.
        notes: what was left out, and why.
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
    encoder: ViTConfig
    decoder: DecoderConfig
    masking: MaskedConfig
    device: torch.device
    dtype: torch.dtype

    def objective(self, mean: tuple[float, ...], std: tuple[float, ...], **changes: Any) -> MaskedObjective:
        masking = replace(self.masking, **changes)
        return MaskedObjective(self.encoder, self.decoder, masking, mean, std, self.settings.seed)

    def loader(self, batch_size: int, augment: Augmentation | None = None) -> Loader:
        s = self.settings
        return Loader(self.source, batch_size, self.encoder.image_size[0], augment, s.seed, threads=s.threads)


def plan(settings: PretrainSettings) -> Plan:
    """Open the data and fill in every setting that follows from them.

    Raises:
        InvalidInput, DataError: a setting that cannot be; see the message.
    """
    data, whole = open_data(settings.data, settings.image_size)
    source = split(whole, settings.holdout, seed=SPLIT_SEED)[0] if settings.holdout else whole
    batch, model, patch = PRESETS.get(data, FOLDER_PRESET)
    batch, model = settings.batch_size or batch, settings.model or model
    side = settings.image_size or source.native_size or FOLDER_IMAGE_SIZE
    encoder = vit_config(
        model, image_size=(side, side), patch_size=settings.patch_size or patch, channels=source.channels
    )
    decoder = decoder_config(
        model,
        kind=settings.decoder,
        embed_dim=settings.decoder_dim,
        depth=settings.decoder_depth,
        heads=settings.decoder_heads,
    )
    predict = settings.predict
    if predict is None:
        predict = 1.0 if decoder.kind == "full" else 1 / 3
    masking = MaskedConfig(
        mask_ratio=settings.mask_ratio,
        mask=settings.mask,  # type: ignore[arg-type]
        loss=settings.loss,  # type: ignore[arg-type]
        predict=predict,
        levels=source.levels if settings.levels is None else settings.levels,
    )
    device = choose_device(settings.device)
    dtype = working_type(settings.precision, device)
    settings = resolved(
        settings,
        data=data,
        out=settings.out or default_folder(data, model),
        steps=total_steps(settings, len(source), batch),
        batch_size=batch,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        device=str(device),
        model=model,
        image_size=side,
        patch_size=encoder.patch_size,
        decoder_dim=decoder.embed_dim,
        decoder_depth=decoder.depth,
        decoder_heads=decoder.heads,
        predict=predict,
        levels=masking.levels,
        lr=settings.lr or BASE_LR * batch / 256,
    )
    return Plan(settings, whole, source, encoder, decoder, masking, device, dtype)


def pretrain(settings: PretrainSettings) -> PretrainResult:
    """Train a masked autoencoder, and leave its backbone, pictures and figures in the run's folder.

    He et al. 2021 (MAE), or Fu et al. 2024 (CrossMAE) with the cross decoder. Sets PyTorch's global seed.
    With `settings.resume` the run in `settings.out` goes on exactly where its newest checkpoint stands.

    Raises:
        ImagenFastError: a setting, the data or the run cannot be taken; the message is one sentence.
    """
    p = plan(settings)
    s = p.settings
    assert s.batch_size is not None
    assert s.lr is not None
    torch.manual_seed(s.seed)
    with p.loader(s.batch_size) as loader:
        objective = p.objective(loader.mean, loader.std)
        facts = {
            "images": len(p.source),
            "encoder": p.encoder.to_dict(),
            "decoder": p.decoder.to_dict(),
            "objective": p.masking.to_dict(),
            "mean": loader.mean,
            "std": loader.std,
        }
        # A ratio that leaves nothing to see is told before a run exists.
        objective.masks(1, 0, torch.device("cpu"))
        run, resume = begin(s, KIND, facts)
        millions = sum(x.numel() for x in objective.parameters()) / 1e6
        say(
            s,
            f"pretraining {s.model} ({millions:.1f} M parameters with its decoder) on {len(p.source)} images "
            f"of {s.image_size} pixels, patches of {s.patch_size}, {s.device} {s.precision}, {s.steps} steps",
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
    """The backbone, the pictures, the accuracies."""
    # The float32 weights, which in bf16 differ from those the loop worked with.
    trained = p.objective(loader.mean, loader.std, predict=1.0)
    load_into(trained, load_checkpoint(run.folder).weights, str(run.folder))
    save_backbone(run.folder, trained.model.encoder, loader.mean, loader.std)
    result = PretrainResult(run.folder, fitted, [])
    try:
        _draw(p, run, trained.to(p.device))
    except MissingPackage as error:
        result.notes.append(f"no pictures: {error}")
    if p.settings.evaluate and p.source.labels is not None:
        say(p.settings, "evaluating the features")
        try:
            result.evaluation = evaluate_backbone(
                trained.model.encoder.to(p.dtype),
                trained.normalize,
                p.whole,
                p.encoder.image_size[0],
                p.device,
                holdout=p.settings.holdout or HOLDOUT,
                batch_size=loader.batch_size,
                threads=p.settings.threads,
            )
            run.write("evaluation.json", result.evaluation)
        except (MissingPackage, TooFewImages) as error:
            result.notes.append(f"no evaluation: {error}")
    result.failed = failed_images(run)
    return result


def _draw(p: Plan, run: Run, trained: MaskedObjective) -> None:
    with p.loader(SHOWN_IMAGES, Augmentation()) as loader:
        images = loader.at(0).images.to(p.device)
    masks = trained.masks(len(images), 0, p.device)
    draw_reconstructions(
        run.folder / "reconstruction.png",
        images.cpu(),
        hidden_pixels(trained, masks).cpu(),
        reconstruct(trained, images, masks).cpu(),
    )
    draw_curves(run.folder / "metrics.jsonl", run.folder / "loss.png")
