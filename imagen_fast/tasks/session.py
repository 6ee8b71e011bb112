"""What every training task does around the loop: its folder, resuming, logs, the list of broken images."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from rich import get_console

from imagen_fast.data import EMBEDDED, Loader, Source, open_source
from imagen_fast.data.webdataset import names_shards, shards_title
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.settings import RunSettings
from imagen_fast.train import Checkpoint, FitConfig, Run, load_checkpoint
from imagen_fast.train.checkpoint import checkpoint_folders, write_atomically
from imagen_fast.train.logs import JsonLog, Log, TensorBoardLog, WandbLog

S = TypeVar("S", bound=RunSettings)

EPOCHS = 100
PHOTO_TILE = 64
FOLDER_IMAGE_SIZE = 224
# Batch size, model, patch side: sizes that suit each embedded set, and photographs in a folder.
PRESETS = {"digits": (256, "nano", 2), "photos": (64, "tiny", 8)}
FOLDER_PRESET = (64, "small", 16)


def open_data(data: str | None, image_size: int | None) -> tuple[str, Source]:
    """The source and the name to remember it by: an absolute path, for a folder or shards."""
    if data is None:
        raise InvalidInput(
            f"give the data: a folder of images, tar shards, or an embedded set ({', '.join(EMBEDDED)})"
        )
    source = open_source(data, tile=image_size or PHOTO_TILE)
    return (data if data in EMBEDDED else str(Path(data).expanduser().resolve())), source


def data_title(data: str) -> str:
    """The name of the data without where it lies."""
    return shards_title(data) if names_shards(data) else Path(data).name


def default_folder(data: str, model: str) -> str:
    return str(Path("runs") / f"{data_title(data)}-{model}")


def total_steps(settings: RunSettings, images: int, batch_size: int) -> int:
    """Updates of the run; an epoch ends with the step that completes it."""
    if settings.steps is not None:
        return settings.steps
    epochs = EPOCHS if settings.epochs is None else settings.epochs
    return max(1, round(epochs * -(-images // batch_size)))


def fit_config(settings: RunSettings, lr: float, betas: tuple[float, float]) -> FitConfig:
    """The loop's settings from resolved ones."""
    assert settings.steps is not None
    return FitConfig(
        steps=settings.steps,
        lr=lr,
        weight_decay=settings.weight_decay,
        betas=betas,
        warmup=round(settings.warmup * settings.steps),
        clip=settings.clip or None,
        compile=settings.compile,
        checkpoint_every=settings.checkpoint_every,
        log_every=settings.log_every,
    )


def settings_of_run(kind: type[S], folder: str | Path, given: dict[str, Any]) -> S:
    """The settings of a run that exists, to resume it, with those that a user gives now put over them.

    Raises:
        CheckpointError: the folder holds no run, or one of another kind.
    """
    stored = dict(Run.open(folder).config.get("settings", {}))
    known = {f.name for f in fields(kind)}
    if odd := sorted(stored.keys() - known):
        raise CheckpointError(f"{folder} holds another kind of run: its settings have {odd[0]!r}")
    if given.get("epochs") is not None:
        stored["steps"] = None
    return kind(**{**stored, "out": str(folder), **given})


def begin(settings: RunSettings, kind: str, facts: dict[str, Any]) -> tuple[Run, Checkpoint | None]:
    """Open the run's folder: a new one, or with `resume` the one that is there, and its newest checkpoint.

    Args:
        settings: resolved: what follows from the data is filled in.
        facts: more that must be the same when the run is resumed (shapes, number of images).

    Raises:
        InvalidInput: the folder already holds a run; or, resuming, something differs from it.
        CheckpointError: resuming, and there is no run.
    """
    assert settings.out is not None
    if not settings.resume:
        config = {"kind": kind, "id": uuid.uuid4().hex[:8], "settings": settings.to_dict(), **facts}
        return Run.create(settings.out, config), None
    run = Run.open(settings.out)
    if run.config.get("kind") != kind:
        raise CheckpointError(f"{settings.out} holds a {run.config.get('kind')} run, not a {kind} run")
    then = run.config["settings"]
    # Through JSON, as the stored ones went: tuples become lists.
    now = json.loads(json.dumps({"settings": settings.to_dict(), **facts}))
    for name in settings.fixed():
        value = now["settings"][name]
        if then.get(name) != value:
            raise InvalidInput(
                f"{name.replace('_', ' ')} cannot change when a run is resumed: it was {then.get(name)!r} in "
                f"{settings.out}, now {value!r}"
            )
    for name, value in facts.items():
        if run.config.get(name) != now[name]:
            raise InvalidInput(
                f"the data of {settings.out} have changed: {name} was {run.config.get(name)}, now {value}"
            )
    return run, load_checkpoint(run.folder)


@contextmanager
def open_logs(run: Run, settings: RunSettings, resume: Checkpoint | None) -> Iterator[list[Log]]:
    """`metrics.jsonl`, and TensorBoard and Weights & Biases where wanted; closed at the end."""
    start = 0 if resume is None else resume.step
    wanted = settings.tensorboard
    if wanted is None:
        wanted = importlib.util.find_spec("tensorboard") is not None
    with ExitStack() as stack:
        logs: list[Log] = []

        def add(log: Log) -> None:
            stack.callback(log.close)
            logs.append(log)

        add(JsonLog(run.folder / "metrics.jsonl", start))
        if wanted:
            add(TensorBoardLog(run.folder / "tensorboard", start))
        if settings.wandb:
            add(WandbLog(run))
        yield logs


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; the message says where it can go on."""


@contextmanager
def interruptible(run: Run, command: str) -> Iterator[None]:
    """Turn Ctrl-C inside the block into `Interrupted`.

    Args:
        command: of `imagen-fast`, that resumes such a run.
    """
    try:
        yield
    except KeyboardInterrupt:
        kept = checkpoint_folders(run.folder)
        if not kept:
            raise Interrupted("interrupted before the first checkpoint; there is nothing to resume") from None
        step = int(kept[-1].name.removeprefix("step-"))
        raise Interrupted(
            f"interrupted; step {step} is kept, go on with: imagen-fast {command} --out {run.folder} --resume"
        ) from None


@contextmanager
def listing_failures(run: Run, *loaders: Loader) -> Iterator[None]:
    """However the block ends, `failed.json` names every image that could not be read so far, and why."""
    try:
        yield
    finally:
        found = dict(failed_images(run))
        for loader in loaders:
            found |= dict(loader.failed)
        if found:
            listed = [{"path": path, "reason": reason} for path, reason in sorted(found.items())]
            write_atomically(run.folder / "failed.json", json.dumps(listed, indent=2) + "\n")


def failed_images(run: Run) -> list[tuple[str, str]]:
    """(path, reason) of every image of the run that could not be read."""
    file = run.folder / "failed.json"
    return [(f["path"], f["reason"]) for f in json.loads(file.read_text())] if file.exists() else []


def say(settings: RunSettings, text: str) -> None:
    """Tell the user something, above the progress bar where there is one."""
    if not settings.quiet:
        get_console().print(text, highlight=False, markup=False, soft_wrap=True)


def resolved(settings: S, **values: Any) -> S:
    """The settings with what follows from the data filled in; steps then stand for epochs."""
    return replace(settings, epochs=None, **values)
