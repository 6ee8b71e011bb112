"""`imagen-fast bench`: run a suite, or make the README's table from its record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console

from imagen_fast.benchmarks import pictures, record, report, roofline, screen
from imagen_fast.benchmarks.contest import Contest, Result, hold
from imagen_fast.benchmarks.machine import describe
from imagen_fast.benchmarks.peers import Absence
from imagen_fast.benchmarks.suites import SUITES
from imagen_fast.errors import InvalidInput
from imagen_fast.figures import put_into

DEVICES = ("cpu", "cuda")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"imagen-fast bench: {message}")


def main(args: list[str]) -> int:
    """Run what `args` asks for.

    Returns:
        0, or 1 where an implementation was not correct.

    Raises:
        ImagenFastError: the arguments, or a file or device that they name, cannot be used.
    """
    # In a file or a log there is no width to fit into.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if args[:1] == ["report"]:
        return _report(args[1:], console)
    parser = _Parser(prog="imagen-fast bench", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "suite",
        nargs="?",
        help=f"{', '.join(SUITES)}; or `report FILE [--readme README.md] [--pictures FOLDER]`",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument("--quick", action="store_true", help="the chief cases only, in less than a minute")
    parser.add_argument("--curves", action="store_true", help="how the cost grows with the work, instead")
    parser.add_argument("--only", default="", metavar="TEXT", help="contests with this in their name")
    parser.add_argument("--list", action="store_true", help="name the suites")
    given = parser.parse_args(args)
    if given.list:
        for name, suite in SUITES.items():
            console.print(f"{name:10} {suite.what}", highlight=False)
        return 0
    if given.suite not in SUITES:
        asked = "is missing" if given.suite is None else f"is unknown: {given.suite!r}"
        raise InvalidInput(f"the suite {asked}; choose from {', '.join(SUITES)}, or report")
    suite, device = SUITES[given.suite], _device(given.device)
    contests = (suite.curves if given.curves else suite.contests)(device, given.quick)
    return _run(given.suite, contests, device, given.quick, given.only, given.json, console)


def _device(name: str) -> torch.device:
    if name not in DEVICES:
        raise InvalidInput(f"device must be one of {', '.join(DEVICES)}, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device cuda was asked for, but PyTorch finds none here; cpu is possible")
    return torch.device(name)


def _run(
    name: str,
    contests: Iterable[Contest],
    device: torch.device,
    quick: bool,
    only: str,
    path: Path | None,
    console: Console,
) -> int:
    if path is not None:
        record.check_writable(path)
    machine = describe(device)
    with console.status("measuring what this machine can do"):
        machine["roofline"] = roofline.measure(device)
    results: list[list[Result]] = []
    absent: list[Absence] = []
    with console.status(f"{name}: starting") as status:
        for contest in contests:
            if only in contest.name:
                absent += contest.absent
                results.append(hold(contest, device, status.update))
    if not results:
        raise InvalidInput(f"no contest of the suite {name} has {only!r} in its name")
    made = record.make_record(name, quick, machine, results, absent)
    screen.show(made, console)
    if path is not None:
        record.write(made, path)
        console.print(f"written to {path}", highlight=False)
    return 0 if all(result["correct"] for result in made["results"]) else 1


def _report(args: list[str], console: Console) -> int:
    parser = _Parser(prog="imagen-fast bench report", allow_abbrev=False)
    parser.add_argument("file", type=Path, help="the JSON of a run")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="replace the table between its markers there"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the record's curves there")
    given = parser.parse_args(args)
    made = record.read(given.file)
    text = report.markdown(made)
    if given.pictures is not None:
        base = Path() if given.readme is None else given.readme.parent
        text += "\n\n" + report.links(pictures.draw(made, given.pictures), base)
    if given.readme is None:
        print(text)
    else:
        put_into(given.readme, given.file.stem, text)
        console.print(f"{given.readme}: the figures of {given.file.stem} are up to date", highlight=False)
    return 0
