"""Pictures of a run. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from imagen_fast.errors import MissingPackage
from imagen_fast.train.logs import read_log

# Hidden patches: a blue that neither ink nor photographs have much of.
HIDDEN_COLOUR = (0.36, 0.44, 0.60)
INK, FAINT, SECOND = "#1f3b73", "#b8c4dc", "#c8553d"
DPI = 150


def draw_reconstructions(path: Path, images: Tensor, hidden: Tensor, rebuilt: Tensor) -> None:
    """Three rows: the input, what the model saw of it, and what it made of that.

    Args:
        images: uint8 [B, C, H, W].
        hidden: bool [B, 1, H, W], true where a pixel was hidden.
        rebuilt: float [B, C, H, W] on the scale 0..1.
    """
    whole = _colours(images.float() / 255)
    masked = np.where(hidden.permute(0, 2, 3, 1).numpy(), np.array(HIDDEN_COLOUR), whole)
    _draw_rows(path, {"input": whole, "masked": masked, "reconstruction": _colours(rebuilt)})


def draw_completions(path: Path, images: Tensor, known: int, completed: Tensor) -> None:
    """Three rows: the rows of pixels that were given, the rest drawn by the model, and the true image.

    Args:
        images, completed: uint8 [B, C, H, W].
        known: how many rows of pixels, from the top, were given.
    """
    whole = _colours(images.float() / 255)
    given = whole.copy()
    given[:, known:] = HIDDEN_COLOUR
    _draw_rows(path, {"given": given, "completed": _colours(completed.float() / 255), "true": whole})


def draw_grid(path: Path, images: Tensor, columns: int) -> None:
    """uint8 images [B, C, H, W] side by side, `columns` a row."""
    shown = _colours(images.float() / 255)
    missing = -len(shown) % columns
    blank = np.ones((missing, *shown.shape[1:]), shown.dtype)
    rows = np.concatenate([shown, blank]).reshape(-1, columns, *shown.shape[1:])
    _draw_rows(path, {str(number): row for number, row in enumerate(rows)}, named=False)


def _draw_rows(path: Path, rows: dict[str, np.ndarray], named: bool = True) -> None:
    """Rows of pictures [n, H, W, 3], each row with its name."""
    cell = 1.25  # inches
    columns = max(len(pictures) for pictures in rows.values())
    figure = new_figure(cell * columns + 0.35 * named, cell * len(rows) + 0.1)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            # Nearest: a digit of eight pixels stays eight pixels.
            axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            for edge in axis.spines.values():
                edge.set_visible(False)
        if named:
            line[0].set_ylabel(name, fontsize=9)
    save(figure, path)


def draw_curves(metrics: Path, path: Path) -> None:
    """The loss over the steps of a run, from its `metrics.jsonl`; accuracy beside it where it was logged."""
    lines = read_log(metrics)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    scores = [(line["step"], line["val_accuracy"]) for line in lines if "val_accuracy" in line]
    panels = 2 if scores else 1
    figure = new_figure(5.2 * panels, 3.4)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    steps, values = np.array(losses, dtype=float).reshape(-1, 2).T
    axes[0].plot(steps, values, color=FAINT, linewidth=0.8, label="each log line")
    axes[0].plot(steps, _smoothed(values), color=INK, linewidth=1.8, label="smoothed")
    axes[0].set_ylabel("training loss")
    axes[0].legend(frameon=False, fontsize=8)
    if scores:
        steps, values = np.array(scores, dtype=float).T
        axes[1].plot(steps, 100 * values, color=SECOND, linewidth=1.6)
        best = int(values.argmax())
        axes[1].plot(steps[best], 100 * values[best], "o", color=SECOND, markersize=5)
        axes[1].annotate(
            f"{100 * values[best]:.1f}%",
            (steps[best], 100 * values[best]),
            (0, -14),
            textcoords="offset points",
        )
        axes[1].set_ylabel("validation accuracy (%)")
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_confusion(path: Path, counts: np.ndarray, classes: tuple[str, ...]) -> None:
    """Which class was taken for which: `counts` [classes, classes], rows are the truth."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = float(np.clip(0.45 * len(classes) + 1.6, 3.6, 14))
    figure = new_figure(size + 0.6, size)
    axis = figure.subplots()
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axis, fraction=0.046, pad=0.03, label="share of the true class")
    if len(classes) <= 60:
        axis.set_xticks(
            range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 3 else 0, fontsize=8
        )
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
    if len(classes) <= 25:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.5 else INK
                axis.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    save(figure, path)


def draw_comparison(path: Path, accuracies: dict[str, list[float]], labels_per_class: int) -> None:
    """A bar for the mean of each way to a classifier, a dot for each of its seeds; accuracies 0..1."""
    figure = new_figure(6.4, 0.75 * len(accuracies) + 0.9)
    axis = figure.subplots()
    for row, values in enumerate(accuracies.values()):
        percent = 100 * np.array(values)
        axis.barh(row, percent.mean(), height=0.55, color=INK if row == 0 else FAINT)
        axis.plot(percent, np.full(len(percent), row), "o", color=SECOND, markersize=4)
        axis.annotate(f"{percent.mean():.1f}%", (101, row), va="center", fontsize=9, annotation_clip=False)
    axis.set_yticks(range(len(accuracies)), list(accuracies), fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"accuracy on held-out digits (%), {labels_per_class} labels a class; a dot a seed")
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Of matplotlib, in inches.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage(
            "drawing needs the package matplotlib: pip install imagen-fast[train]"
        ) from error
    # Not pyplot: it would keep global state and might look for a display.
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path) -> None:
    """By the ending of the path's name; on white."""
    figure.savefig(path, dpi=DPI, facecolor="white")


def _colours(images: Tensor) -> np.ndarray:
    """[B, 1 or 3, H, W] -> [B, H, W, 3]"""
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).float().numpy()


def _smoothed(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """A running mean over about `share` of the points on either side; the window narrows at the ends."""
    reach = int(len(values) * share)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    near = np.minimum(reach, np.minimum(at, len(values) - 1 - at))
    return (total[at + near + 1] - total[at - near]) / (2 * near + 1)
