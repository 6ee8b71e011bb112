"""The one training loop: pretraining and fine-tuning differ in their objective only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from imagen_fast import native
from imagen_fast.data import Loader
from imagen_fast.errors import CheckpointError, ImagenFastError, InvalidInput
from imagen_fast.objectives import Output
from imagen_fast.train.checkpoint import Checkpoint, save_checkpoint
from imagen_fast.train.logs import Log, progress_bar
from imagen_fast.train.optimizer import MasterAdamW
from imagen_fast.train.run import Run
from imagen_fast.train.schedule import cosine_with_warmup


class Diverged(ImagenFastError, ArithmeticError):
    """The loss or its gradient is no number any more."""


@dataclass(frozen=True)
class FitConfig:
    """How to optimise.

    Args:
        steps: updates in all, counted from the first run's start.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        clip: largest L2 norm of the gradient; None: no clipping.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        log_every: steps between log lines.
    """

    steps: int
    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 0
    clip: float | None = 1.0
    compile: bool = False
    checkpoint_every: int = 1000
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "lr", "checkpoint_every", "log_every"):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} must be positive, not {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class FitResult:
    """What a finished run was like: wall seconds, images/s and the share of time that waited for data."""

    steps: int
    seconds: float
    images_per_second: float
    data_wait: float
    last_loss: float


def fit(
    objective: nn.Module,
    loader: Loader,
    config: FitConfig,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    run: Run | None = None,
    resume: Checkpoint | None = None,
    logs: Sequence[Log] = (),
    lr_scale: Callable[[str], float] | None = None,
    after_step: Callable[[int, MasterAdamW], None] | None = None,
    title: str = "training",
    quiet: bool = False,
) -> FitResult:
    """Minimise `objective(batch, step).loss` over the batches of `loader`.

    On the CPU the process keeps from then on what memory it frees (`native.keep_freed_memory`).

    Args:
        objective: a module that is an `objectives.Objective`; it is moved to `device` and, its weights
            cast to `dtype`, trained in place.
        run: where checkpoints go; None keeps none.
        resume: a checkpoint of an equal run, continued exactly.
        after_step: called with the number of steps done and the optimiser, whose `weights()` are float32.

    Raises:
        Diverged: the loss, its gradient or a weight is not finite; the last checkpoint is from before.
        CheckpointError: `resume` is of another model, or lacks a part.
    """
    if device.type == "cpu":
        native.keep_freed_memory()
    objective.to(device)
    objective.train()
    optimizer = MasterAdamW(objective, dtype, config.weight_decay, config.betas, lr_scale=lr_scale)
    start = 0
    if resume is not None:
        start = resume.step
        optimizer.load(resume.weights, resume.optimizer, "the checkpoint")
        _restore_random_state(resume, device)
    forward = torch.compile(objective) if config.compile else objective

    def checkpoint(step: int) -> None:
        if run is None:
            return
        state = {**optimizer.state_dict(), "rng": torch.get_rng_state()}
        if device.type == "cuda":
            state["rng_cuda"] = torch.cuda.get_rng_state(device)
        # Without clipping there is no norm that would have shown a spoiled gradient.
        if not optimizer.finite():
            raise Diverged(
                f"a weight is no number at step {step}; try a lower learning rate than {config.lr}"
            )
        save_checkpoint(run.folder, Checkpoint(step, optimizer.weights(), state, {}))

    def check(output: Output, norm: torch.Tensor | None, step: int) -> float:
        """The loss as a number; waits for the device. A gradient that is none spoils the weights, too."""
        loss = float(output.loss.detach())
        for name, value in (("loss", loss), ("gradient's norm", 0.0 if norm is None else float(norm))):
            if not math.isfinite(value):
                raise Diverged(
                    f"the {name} became {value} at step {step}; try a lower learning rate than {config.lr}"
                )
        return loss

    batches = loader.batches(start)
    began = logged = time.perf_counter()
    waited = waited_before = loader.waited
    images = images_since = 0
    last = math.nan
    with progress_bar(quiet) as bar:
        task = bar.add_task(title, total=config.steps, completed=start, report="")
        for step in range(start, config.steps):
            batch = next(batches).to(device)
            lr = config.lr * cosine_with_warmup(step, config.steps, config.warmup)
            output = forward(batch, step)
            output.loss.backward()
            norm = optimizer.step(lr, config.clip)
            done = step + 1
            images += len(batch.images)
            images_since += len(batch.images)
            if done % config.log_every == 0 or done == config.steps:
                last = check(output, norm, done)
                now = time.perf_counter()
                values = {"loss": last, "lr": lr, "images_per_second": images_since / (now - logged)}
                values["data_wait"] = (loader.waited - waited) / (now - logged)
                if norm is not None:
                    values["grad_norm"] = float(norm)
                values |= {name: float(value) for name, value in output.metrics.items()}
                for log in logs:
                    log.write(done, values)
                report = (
                    f"loss {last:.4f}  {values['images_per_second']:.0f} images/s"
                    f"  waiting for data {values['data_wait']:.0%}"
                )
                bar.update(task, completed=done, report=report)
                logged, waited, images_since = now, loader.waited, 0
            # Before the checkpoint: a run killed between the two repeats the step, and loses nothing.
            if after_step is not None:
                after_step(done, optimizer)
            if done % config.checkpoint_every == 0 or done == config.steps:
                check(output, norm, done)  # so that the newest checkpoint is always a good one
                checkpoint(done)
    seconds = time.perf_counter() - began
    return FitResult(
        config.steps - start,
        seconds,
        images / seconds if images else 0.0,
        (loader.waited - waited_before) / max(seconds, 1e-9),
        last,
    )


def _restore_random_state(checkpoint: Checkpoint, device: torch.device) -> None:
    name = "rng"
    try:
        torch.set_rng_state(checkpoint.optimizer[name])
        if device.type == "cuda":
            name = "rng_cuda"
            torch.cuda.set_rng_state(checkpoint.optimizer[name], device)
    except KeyError:
        raise CheckpointError(f"the optimiser's state of the checkpoint lacks {name!r}") from None
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"the random state {name!r} of the checkpoint cannot be taken: {error}"
        ) from None
