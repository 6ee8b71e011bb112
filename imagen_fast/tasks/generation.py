"""Images that a causal run draws: new ones, and lower halves of given ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagen_fast.data import Augmentation, CenterCrop, Loader, open_source, split
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import PixelConfig, PixelTransformer
from imagen_fast.models.sampling import Choice, generate
from imagen_fast.objectives import CausalObjective
from imagen_fast.tasks.pictures import draw_completions, draw_grid
from imagen_fast.tasks.prediction import read_images
from imagen_fast.tasks.probe import SPLIT_SEED
from imagen_fast.train import Run, choose_device, load_checkpoint, load_into

NEW, COMPLETED = "new.png", "completed.png"
COLUMNS = 8


@dataclass(frozen=True)
class Generated:
    """What was drawn.

    Attributes:
        folder: holds `new.png` and `completed.png`, and each image by itself in `new/` and `completed/`.
        new, completed: how many.
        failed: (path, reason) of the given images that could not be read.
    """

    folder: Path
    new: int
    completed: int
    failed: list[tuple[str, str]] = field(default_factory=list)


def load_pixel_transformer(run: str | Path, device: torch.device) -> PixelTransformer:
    """The model of a causal run, its float32 weights, ready to draw.

    Raises:
        CheckpointError: the folder holds no causal run, or no checkpoint.
    """
    config = Run.open(run).config
    settings = config.get("settings", {})
    if config.get("kind") != "pretrain" or settings.get("objective") != "causal":
        what = settings.get("objective", config.get("kind"))
        raise CheckpointError(
            f"only a run of the causal objective can draw images, and {run} is a {what} run"
        )
    objective = CausalObjective(PixelConfig.from_dict(config["encoder"]))
    load_into(objective, load_checkpoint(Path(run)).weights, str(run))
    return objective.model.to(device).eval()


def generate_images(
    run: str | Path,
    images: Iterable[str | Path] = (),
    *,
    out: str | Path | None = None,
    new: int = 16,
    complete: int = 8,
    keep: float = 0.5,
    choice: Choice | None = None,
    seed: int = 0,
    batch_size: int = 16,
    device: str | None = None,
) -> Generated:
    """Draw new images, and the lower part of given ones.

    The same seed gives the same image at any batch size.

    Args:
        run: the folder of a causal run.
        images: files and folders of images to complete; none: of the run's own data those that training
            never saw.
        out: where the pictures go; RUN/generated where not given.
        new: how many new images are drawn.
        complete: how many of the run's data are completed, where no images are given.
        keep: share of the rows that is given, from the top.

    Raises:
        CheckpointError: the folder holds no causal run.
        InvalidInput, DataError: a number out of range, or no images.
    """
    if new < 0 or complete < 0 or batch_size < 1:
        raise InvalidInput(
            f"counts must be 0 or more and the batch size at least 1, not {new}, {complete} and {batch_size}"
        )
    if not 0.0 <= keep < 1.0:
        raise InvalidInput(f"the share that is kept must be at least 0 and below 1, not {keep}")
    model = load_pixel_transformer(run, choose_device(device))
    folder = Path(out) if out is not None else Path(run) / "generated"
    choice = choice or Choice()
    given, failed = _given(Path(run), model.config, list(images), complete)
    folder.mkdir(parents=True, exist_ok=True)
    if new:
        drawn = _in_batches(model, new, None, 0, choice, seed, batch_size)
        draw_grid(folder / NEW, drawn, min(COLUMNS, new))
        _save_each(folder / "new", drawn)
    if len(given):
        rows, columns = model.config.grid
        known_rows = max(round(rows * keep), -(-model.config.context.prefix // columns))
        completed = _in_batches(model, len(given), given, known_rows * columns, choice, seed, batch_size)
        draw_completions(folder / COMPLETED, given, known_rows * model.config.patch_size, completed)
        _save_each(folder / "completed", completed)
    return Generated(folder, new, len(given), failed)


def _in_batches(
    model: PixelTransformer,
    count: int,
    given: Tensor | None,
    known: int,
    choice: Choice,
    seed: int,
    batch_size: int,
) -> Tensor:
    """uint8 [count, C, H, W] on the CPU."""
    made = []
    for first in range(0, count, batch_size):
        part = range(first, min(first + batch_size, count))
        values = None
        if given is not None:
            values = model.symbols(given[part.start : part.stop].to(model.pos_embed.device))
        drawn = generate(model, len(part), given=values, known=known, choice=choice, seed=seed, first=first)
        made.append(model.symbols.images(drawn).cpu())
    return torch.cat(made)


def _given(
    run: Path, config: PixelConfig, images: list[str | Path], complete: int
) -> tuple[Tensor, list[tuple[str, str]]]:
    """uint8 [n, C, H, W] to be completed, and the files that could not be read."""
    side, channels = config.image_size[0], config.channels
    if images:
        read = list(read_images(images, CenterCrop(), side, channels))
        good = [pixels for _, pixels in read if not isinstance(pixels, str)]
        failed = [(str(path), why) for path, why in read if isinstance(why, str)]
        stacked = np.stack(good) if good else np.zeros((0, channels, side, side), np.uint8)
        return torch.from_numpy(stacked), failed
    if not complete:
        return torch.zeros(0, channels, side, side, dtype=torch.uint8), []
    settings = Run.open(run).config["settings"]
    source = open_source(settings["data"], tile=side)
    if settings["holdout"]:
        source = split(source, settings["holdout"], seed=SPLIT_SEED)[1]
    count = min(complete, len(source))
    with Loader(source, count, side, Augmentation(), shuffle=False, channels=channels) as loader:
        return loader.at(0).images, list(loader.failed)


def _save_each(folder: Path, images: Tensor) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
            folder / f"{number:04}.png"
        )
