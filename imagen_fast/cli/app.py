"""The commands of `imagen-fast`: each fetches its task, runs it and tells what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagen_fast.cli.options import takes
from imagen_fast.cli.profile import Words, profile
from imagen_fast.errors import ImagenFastError
from imagen_fast.tasks.settings import FinetuneSettings, PretrainSettings

if TYPE_CHECKING:
    from imagen_fast.train import FitResult

app = typer.Typer(
    name="imagen-fast",
    no_args_is_help=True,
    add_completion=False,
    # An error of ours is one sentence; a defect shows Python's own traceback.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

RunFolder = Annotated[Path, typer.Option("--from", help="The run's folder.")]


def main(args: list[str] | None = None) -> None:
    """The entry point. A user's mistake prints one sentence and ends with status 2."""
    try:
        app(args)
    except ImagenFastError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        from imagen_fast import __version__

        print(f"imagen-fast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn image backbones from unlabelled pictures, fast."""


@app.command()
@takes(PretrainSettings)
def pretrain(settings: PretrainSettings) -> None:
    """Train a backbone on pictures without labels: fill in, predict the next, or both."""
    from imagen_fast.tasks.pretrain import pretrain as task

    with _stopping():
        result = task(settings)
    if settings.quiet:
        return
    _tell_fitted(result.fitted)
    e = result.evaluation
    if e is not None and "knn" in e:
        print(
            f"k-NN {e['knn']:.1%}, linear probe {e['linear']:.1%} "
            f"({e['heldout_images']} held-out images, {e['classes']} classes)"
        )
    for note in result.notes:
        print(note)
    _tell_failed(result.failed, result.folder)
    print(f"the backbone, the pictures and the logs are in {result.folder}")


@app.command()
@takes(FinetuneSettings)
def finetune(settings: FinetuneSettings) -> None:
    """Train a classifier on a pretrained backbone, or from scratch."""
    from imagen_fast.tasks.classification import finetune as task

    with _stopping():
        result = task(settings)
    if settings.quiet:
        return
    _tell_fitted(result.fitted)
    print(result.report)
    print(
        f"accuracy {result.accuracy:.1%} at step {result.best_step} (the best), "
        f"{result.last_accuracy:.1%} at the end"
    )
    for note in result.notes:
        print(note)
    _tell_failed(result.failed, result.folder)
    print(f"the classifier, the report and the pictures are in {result.folder}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    run: RunFolder,
    top_k: Annotated[int, typer.Option(help="Classes shown of each image, the likeliest first.", min=1)] = 1,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Classify images with a finished run; status 1 where one could not be read."""
    from imagen_fast.tasks.prediction import predict as task

    result = task(run, images, top_k=top_k, batch_size=batch_size, device=device)
    if as_json:
        _print_json(result.to_dict())
    else:
        for prediction in result.predictions:
            ranked = "  ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
            print(f"{prediction.path}: {ranked}")
    for path, reason in result.failed:
        print(f"error: {path} cannot be read: {reason}", file=sys.stderr)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def generate(
    run: RunFolder,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files, and folders, to complete.  \\[default: held-out images of the run's data]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the pictures.  \\[default: RUN/generated]")
    ] = None,
    new: Annotated[int, typer.Option(help="New images to draw.", min=0)] = 16,
    complete: Annotated[
        int, typer.Option(help="Images of the run's data to complete, where none are given.", min=0)
    ] = 8,
    keep: Annotated[float, typer.Option(help="Share of the rows that is given, from the top.")] = 0.5,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0: the likeliest value.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among so many of the likeliest values.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest that make up so much.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at a time; it changes none of them.", min=1)] = 16,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:
    """Draw images with a causal run: new ones, and the lower half of given ones."""
    from imagen_fast.models.sampling import Choice
    from imagen_fast.tasks.generation import generate_images as task

    result = task(
        run,
        images or (),
        out=out,
        new=new,
        complete=complete,
        keep=keep,
        choice=Choice(temperature, top_k, top_p),
        seed=seed,
        batch_size=batch_size,
        device=device,
    )
    print(f"{result.new} new images and {result.completed} completed ones are in {result.folder}")
    for path, reason in result.failed:
        print(f"error: {path} cannot be read: {reason}", file=sys.stderr)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def export(
    run: RunFolder,
    format: Annotated[
        str, typer.Option("--format", help="timm (a safetensors file), vitmae or hub (a folder).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file or folder to write.")],
) -> None:
    """Write a run's weights for timm, for transformers' ViTMAE or for the Hugging Face Hub."""
    from imagen_fast.tasks.export import export as task

    print(task(run, format, out))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for runs, pictures and figures.")] = Path("out/demo"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no messages.")] = False,
) -> None:
    """Show on handwritten digits that pretraining pays, and that a model learns to draw them."""
    from imagen_fast.tasks.demo import demo as task

    result = task(out, quiet)
    if quiet:
        return
    from imagen_fast.cli.demo import show

    show(result)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say, operation by operation, which back-end runs here and why not a faster one."""
    from imagen_fast.tasks.doctor import examine

    report = examine()
    if as_json:
        _print_json(report)
        return
    from imagen_fast.cli.doctor import show

    show(report)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def bench(ctx: typer.Context) -> None:
    """Measure, beside PyTorch and the installed peers; `bench --help` lists the suites."""
    try:
        from imagen_fast.benchmarks import cli
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("imagen_fast.benchmarks"):
            raise
        from imagen_fast.errors import MissingPackage

        raise MissingPackage("the benchmarks are not part of this installation") from error

    raise typer.Exit(cli.main(ctx.args))


app.command(cls=Words, add_help_option=False)(profile)


@contextmanager
def _stopping() -> Iterator[None]:
    """Say after Ctrl-C where the run can go on."""
    from imagen_fast.tasks.session import Interrupted

    try:
        yield
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


def _tell_fitted(fitted: FitResult) -> None:
    if not fitted.steps:
        print("the run was finished already")
        return
    print(
        f"{fitted.steps} steps in {fitted.seconds:.1f} s, {fitted.images_per_second:.0f} images/s, "
        f"{fitted.data_wait:.0%} of the time waiting for data, last loss {fitted.last_loss:.4f}"
    )


def _tell_failed(failed: list[tuple[str, str]], folder: Path) -> None:
    if failed:
        what = f"{len(failed)} images or shards could not be read, or not to their end"
        print(f"{what}; {folder / 'failed.json'} lists them")
