"""Where a run's numbers go: a JSON-lines file always, TensorBoard and Weights & Biases where wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from imagen_fast.errors import MissingPackage
from imagen_fast.train.checkpoint import write_atomically
from imagen_fast.train.run import Run


class Log(Protocol):
    def write(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonLog:
    """`metrics.jsonl`, one object a line. A resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, start: int = 0) -> None:
        kept = [line for line in read_log(path) if line["step"] <= start]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", buffering=1)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


class TensorBoardLog:
    def __init__(self, folder: Path, start: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackage(
                "the TensorBoard log needs the package tensorboard: pip install imagen-fast[train]"
            ) from error
        # purge_step hides what a crashed run wrote after its last checkpoint.
        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackage(
                "the Weights & Biases log needs the package wandb: pip install imagen-fast[wandb]"
            ) from error
        self._run = wandb.init(
            project="imagen-fast", dir=str(run.folder), id=run.config["id"], resume="allow", config=run.config
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def progress_bar(disable: bool = False) -> Progress:
    """Loss, images/s, share of time spent waiting for data, and time left, on one line."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[report]}"),
        TimeRemainingColumn(),
        disable=disable,
    )
