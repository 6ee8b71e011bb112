"""`imagen-fast profile`: run a program and say what holds it up, compare two profiles, draw one again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from imagen_fast.errors import InvalidInput

USAGE = """imagen-fast profile [options] -- command ...
       imagen-fast profile diff A.json B.json
       imagen-fast profile report FILE.json"""


class Words(TyperCommand):
    """A command that gets its words as they are: what follows `--` is another program's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"imagen-fast profile: {message}")


def profile(ctx: typer.Context) -> None:
    """Run any program and name its bottleneck, with evidence; `profile --help` says how."""
    raise typer.Exit(main(ctx.args))


def main(args: list[str]) -> int:
    """Do what `args` asks for.

    Returns:
        The program's status.

    Raises:
        ImagenFastError: the arguments, or a file that they name, cannot be used.
    """
    from imagen_fast.profiling.run import WINDOW

    if args and args[0] in COMMANDS:
        return COMMANDS[args[0]](args[1:])
    parser = _Parser(prog="imagen-fast profile", usage=USAGE, description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the profile  [default: profile-TIME]")
    parser.add_argument("--live", action="store_true", help="show in the terminal how it runs")
    parser.add_argument(
        "--interval", type=_seconds, metavar="S", help="between samples  [default: at most 1%% of a core]"
    )
    parser.add_argument(
        "--window",
        type=_count,
        default=WINDOW,
        metavar="STEPS",
        help=f"of which every operation is recorded  [default: {WINDOW}]",
    )
    parser.add_argument(
        "--ceilings",
        action="store_true",
        help="measure the gain of waiting for nothing: a few batches are drawn a little earlier",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    given = parser.parse_args(args)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        raise InvalidInput(
            "imagen-fast profile: the command to run is missing: imagen-fast profile -- command ..."
        )
    return _run(command, given)


def _run(command: list[str], given: argparse.Namespace) -> int:
    from imagen_fast.profiling import files
    from imagen_fast.profiling.brief import brief
    from imagen_fast.profiling.run import CannotStart, Options, run

    out = given.out or files.usual_folder()
    options = Options(given.interval, given.window, given.ceilings)
    files.prepare(out)
    try:
        if given.live:
            from imagen_fast.profiling.live import Live

            recording = run(command, options, Live)
        else:
            recording = run(command, options)
    except CannotStart as error:
        files.abandon(out)
        print(f"error: {error}", file=sys.stderr)
        return error.status
    assert recording.exit_code is not None
    try:
        summary, verdict = files.keep(recording, out)
    except InvalidInput as error:
        # The program has run all the same, and its status tells how.
        print(f"error: {error}", file=sys.stderr)
        return recording.exit_code
    # On standard error: the program's own output may be read by another program.
    print(f"\n{brief(summary, verdict, out / files.RECORD)}", file=sys.stderr)
    return recording.exit_code


def _diff(args: list[str]) -> int:
    from rich.console import Console

    from imagen_fast.profiling import diff, page
    from imagen_fast.profiling.recording import read

    parser = _Parser(prog="imagen-fast profile diff", allow_abbrev=False)
    parser.add_argument("before", type=Path, metavar="A", help="the JSON of a profile, or its folder")
    parser.add_argument("after", type=Path, metavar="B", help="that of another")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page, too")
    given = parser.parse_args(args)
    before, after = (read(_record(path))[1] for path in (given.before, given.after))
    compared = diff.compare(before, after)
    # In a file or a log there is no width to fit into.
    diff.show(compared, Console() if sys.stdout.isatty() else Console(width=160))
    if given.html:
        page.write_diff(compared, given.html)
    return 0


def _report(args: list[str]) -> int:
    from imagen_fast.profiling import files
    from imagen_fast.profiling.recording import read

    parser = _Parser(prog="imagen-fast profile report", allow_abbrev=False)
    parser.add_argument("file", type=Path, metavar="FILE", help="the JSON of a profile, or its folder")
    record = _record(parser.parse_args(args).file)
    for path in files.draw_again(read(record)[0], record):
        print(path)
    return 0


def _record(path: Path) -> Path:
    from imagen_fast.profiling import files

    return path / files.RECORD if path.is_dir() else path


def _seconds(word: str) -> float:
    seconds = float(word)
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be 0.01 to 3600 seconds, not {word}")
    return seconds


def _count(word: str) -> int:
    count = int(word)
    if count < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {word}")
    return count


# The words that are no programs; each has a parser of its own.
COMMANDS = {"diff": _diff, "report": _report}
