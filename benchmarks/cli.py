"""`imagen-fast bench`: run a suite, make the README's table from its record, or compare two records."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.markup import escape

from imagen_fast.benchmarks import compare, compare_screen, pictures, record, report, roofline, screen
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
        0, or 1 where an implementation was not correct or, compared, is slower, no longer correct or missing.

    Raises:
        ImagenFastError: the arguments, or a file or device that they name, cannot be used.
    """
    # In a file or a log there is no width to fit into.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if args and args[0] in COMMANDS:
        return COMMANDS[args[0]](args[1:], console)
    parser = _Parser(prog="imagen-fast bench", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "suite",
        nargs="?",
        help=f"{', '.join(SUITES)}; `report FILE [--readme README.md] [--pictures FOLDER]`, `compare A B`",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument("--quick", action="store_true", help="the chief cases only, in less than a minute")
    parser.add_argument("--curves", action="store_true", help="how the cost grows with the work, instead")
    parser.add_argument("--only", default="", metavar="TEXT", help="contests with this in their name")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="so many of each contest, however long they take"
    )
    parser.add_argument("--list", action="store_true", help="name contests and peers, and measure nothing")
    given = parser.parse_args(args)
    if given.suite not in SUITES and not (given.list and given.suite is None):
        asked = "is missing" if given.suite is None else f"is unknown: {given.suite!r}"
        raise InvalidInput(f"the suite {asked}; choose from {', '.join(SUITES)}, report, or compare")
    if given.rounds is not None and given.rounds < 1:
        raise InvalidInput(f"--rounds must be 1 or more, not {given.rounds}")
    device = _device(given.device)
    if given.list:
        _list(given, device, console)
        return 0
    return _run(given, device, console)


def _list(given: argparse.Namespace, device: torch.device, console: Console) -> None:
    listed = False
    for name in SUITES if given.suite is None else [given.suite]:
        try:
            contests = list(_contests(name, device, given))
        except InvalidInput as error:
            if given.suite is not None:
                raise
            # Of all suites, those that have what was asked for.
            console.print(escape(f"{name}: {error}"), highlight=False)
            continue
        if contests:
            screen.contents(name, contests, console)
            listed = True
    if not listed:
        raise _nothing(given)


def _nothing(given: argparse.Namespace) -> InvalidInput:
    where = "" if given.suite is None else f" of the suite {given.suite}"
    return InvalidInput(f"no contest{where} has {given.only!r} in its name")


def _contests(name: str, device: torch.device, given: argparse.Namespace) -> Iterator[Contest]:
    """Of this suite, those that were asked for."""
    suite = SUITES[name]
    for contest in (suite.curves if given.curves else suite.contests)(device, given.quick):
        if given.only in contest.name:
            rounds = {} if given.rounds is None else {"least": given.rounds, "most": given.rounds}
            yield replace(contest, effort=replace(contest.effort, **rounds))


def _device(name: str) -> torch.device:
    if name not in DEVICES:
        raise InvalidInput(f"device must be one of {', '.join(DEVICES)}, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device cuda was asked for, but PyTorch finds none here; cpu is possible")
    return torch.device(name)


def _run(given: argparse.Namespace, device: torch.device, console: Console) -> int:
    if given.json is not None:
        record.check_writable(given.json)
    machine = describe(device)
    with console.status("measuring what this machine can do"):
        machine["roofline"] = roofline.measure(device)
    results: list[list[Result]] = []
    absent: list[Absence] = []
    with console.status(f"{given.suite}: starting") as status:
        for contest in _contests(given.suite, device, given):
            absent += contest.absent
            results.append(hold(contest, device, status.update))
    if not results:
        raise _nothing(given)
    made = record.make_record(given.suite, given.quick, machine, results, absent)
    screen.show(made, console)
    if given.json is not None:
        record.write(made, given.json)
        console.print(f"written to {given.json}", highlight=False)
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


def _compare(args: list[str], console: Console) -> int:
    parser = _Parser(
        prog="imagen-fast bench compare",
        description="What is faster, slower, the same or unclear in B. Exit status: 0, nothing is slower; "
        "1, something of ours is slower, no longer correct, or missing; 2, the records cannot be compared.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "a", type=Path, metavar="A.json", help="the record of a run before; or a folder, of several"
    )
    parser.add_argument("b", type=Path, metavar="B.json", help="that of a run after; or a folder, of several")
    parser.add_argument("--threshold", default="5%", help="the smallest change that matters (default 5%%)")
    parser.add_argument(
        "--timer",
        default="wall",
        help="wall (default), or cpu: processor seconds, for a busy machine; blind to waiting",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--peers", action="store_true", help="judge the peers too")
    parser.add_argument(
        "--across-machines", action="store_true", help="though machines, threads or versions differ"
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 also where something is unclear")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write verdicts and evidence here")
    given = parser.parse_args(args)
    if given.timer not in compare.TIMERS:
        raise InvalidInput(f"--timer must be one of {', '.join(compare.TIMERS)}, not {given.timer!r}")
    threshold = _share(given.threshold)
    if given.json is not None:
        record.check_writable(given.json)
    found = compare.compare(
        record.read_runs(given.a),
        record.read_runs(given.b),
        threshold,
        given.timer,
        given.peers,
        given.across_machines,
        given.only,
        (str(given.a), str(given.b)),
    )
    compare_screen.show(found, console)
    if given.json is not None:
        record.write(found.as_json(), given.json)
        console.print(f"written to {given.json}", highlight=False)
    return 1 if found.worse or (given.strict and found.undecided) else 0


def _share(text: str) -> float:
    """`5%` or `0.05`."""
    number = re.fullmatch(r"(\d+\.?\d*|\.\d+)(%?)", text)
    share = float(number[1]) / (100 if number[2] else 1) if number else 0.0
    if not 0 < share < 1:
        raise InvalidInput(f"--threshold must be a share such as 5% or 0.05, not {text!r}")
    return share


# The words that are no suites; each has a parser of its own.
COMMANDS = {"report": _report, "compare": _compare}
