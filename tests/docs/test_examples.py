"""Every command and example of the README and of the pages runs.

Examples of Python and lines for a shell are run in the order of their page, all in one folder and the Python
in one namespace. Commands within a sentence, and those that need a GPU, are parsed by whoever would run them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from examples import PAGES, PROGRAMS, ROOT, Example, NoRule, examples
from imagen_fast.benchmarks.suites import SUITES
from imagen_fast.cli import main
from imagen_fast.cli.app import app

# What is run in place of what is written, or left to its default, so that it takes seconds and not hours; by
# the words that a command begins with.
QUICK = {
    "pretrain": {"--epochs": ("--steps", "1"), "--batch-size": ("--batch-size", "2")},
    "finetune": {"--epochs": ("--steps", "1"), "--batch-size": ("--batch-size", "2")},
    "generate": {"--new": ("--new", "2"), "--complete": ("--complete", "1")},
    "bench pixels": {"--quick": ("--quick",), "--only": ("--only", "neighbourhood")},
    "bench attention": {
        "--quick": ("--quick",),
        "--only": ("--only", "packed B16 N49 H12 D64 bf16"),
        "--rounds": ("--rounds", "3"),
    },
    "bench attention --curves": {"--quick": ("--quick",), "--only": ("--only", "N16 ")},
}
# The status is 1 where the second record is slower, as it may well be after three rounds.
TELLING = {"bench compare": (0, 1)}
# What a sentence has in place of a word, and a word that could stand there.
PLACEHOLDERS = {"COMMAND": "pretrain", "FILE": "figures.json", "FOLDER": "folder", "SUITE": "attention"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, data, monkeypatch):
    monkeypatch.chdir(data)
    # A program that is profiled is one for the Python that runs the tests.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.rmtree(data / "runs", ignore_errors=True)
    names: dict[str, object] = {}
    for example in examples(page, (ROOT / page).read_text()):
        try:
            if example.kind == "python":
                run_python(example, names)
            else:
                run_shell(example, example.kind == "shell")
        except Exception as error:
            raise AssertionError(f"{example}\n{type(error).__name__}: {error}") from error


def run_python(example: Example, names: dict[str, object]) -> None:
    # A traceback then names the line of the page.
    code = compile("\n" * (example.line - 1) + example.text, str(ROOT / example.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)


def run_shell(example: Example, really: bool) -> None:
    words = shlex.split(example.text, comments=True)
    if words[0] not in PROGRAMS:
        raise NoRule(f"no rule says how to test a command of {words[0]!r}")
    if words[0] == "imagen-fast":
        needs_a_gpu = "cuda" in words
        imagen_fast(words[1:]) if really and not needs_a_gpu else parsed(words[1:])
    else:
        CHECKS[words[0]](words[1:])


def imagen_fast(words: list[str]) -> None:
    words = quick(words)
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
        main(words)
    right = of_beginning(TELLING, words, (0,))
    assert (end.value.code or 0) in right, f"status {end.value.code} of imagen-fast {shlex.join(words)}"


def quick(words: list[str]) -> list[str]:
    """The words as QUICK has them; a run that is resumed keeps its numbers."""
    replaced = of_beginning(QUICK, words, {}) if "--resume" not in words else {}
    kept = words
    for option in replaced:
        if option in kept:
            at = kept.index(option)
            kept = kept[:at] + kept[at + len(replaced[option]) :]
    return [*kept, *(word for new in replaced.values() for word in new)]


def of_beginning(table: dict[str, Any], words: list[str], otherwise: Any) -> Any:
    """What a table has for the longest beginning of the words that it knows."""
    beginnings = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((table[known] for known in beginnings if known in table), otherwise)


class Parsed(Exception):
    """Every word was understood."""


def parsed(words: list[str]) -> None:
    """The parsers of `imagen-fast` take the words, or there is a command of that name; nothing is run."""
    name, *words = (PLACEHOLDERS.get(word, word) for word in words)
    command = typer.main.get_command(app).commands[name]
    if not words or words == ["--help"]:
        return
    if command.params:
        command.make_context(name, words)
    else:  # it has a parser of its own
        with stopping_after_the_parser(), contextlib.suppress(Parsed):
            main([name, *words])


@contextlib.contextmanager
def stopping_after_the_parser():
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        given = parse(self, args, namespace)
        assert getattr(given, "suite", None) in (None, *SUITES)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        yield


def make(words: list[str]) -> None:
    """There is such a target."""
    told = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def pip(words: list[str]) -> None:
    """What would be installed of ours has such extras."""
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[1:]:
        if found := re.fullmatch(r"(?:\.|imagen-fast)\[([\w,-]+)\]", word):
            assert set(found[1].split(",")) <= extras.keys(), word


def python(words: list[str]) -> None:
    """There is such a module or file, and its help names the options."""
    words = words[1:] if words[0] == "-P" else words
    if words[:2] == ["-m", "pytest"]:
        pytest_takes(words[2:])
        return
    if words[0] == "-m":
        _, name, *words = words
        assert importlib.util.find_spec(name) is not None, f"there is no module {name}"
        run = functools.partial(runpy.run_module, name)
    else:
        name, *words = words
        assert (ROOT / name).is_file(), f"there is no file {name}"
        run = functools.partial(runpy.run_path, str(ROOT / name))
    options = re.findall(r"--[\w-]+", " ".join(words))
    if options:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
            patch.setattr(sys, "argv", [name, "--help"])
            patch.syspath_prepend(ROOT / Path(name).parent)  # as Python does for a file
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                run(run_name="__main__")
        for option in options:
            assert option in printed.getvalue(), f"{name} has no {option}"


def pytest_takes(words: list[str]) -> None:
    """It knows the options, and the folders are there."""
    # It opens a file that it is to write, though it writes nothing.
    words = [os.devnull if word == "FILE" else word for word in words]
    nothing = ["--collect-only", "--noconftest", "-o", "testpaths=tests/docs/importable"]
    command = [sys.executable, "-P", "-m", "pytest", *words, *nothing]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), told.stderr


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": make,
    "pip": pip,
    "python": python,
    "pytest": pytest_takes,
}


@pytest.mark.parametrize(
    "block", ["```bash\nmake test\n```", "```\nimagen-fast doctor\n```", "```{code-block} python\n1\n```"]
)
def test_a_block_of_another_kind_is_refused(block):
    with pytest.raises(NoRule):
        examples("page.md", block)


@pytest.mark.parametrize(
    "line",
    [
        "    rm -r runs",
        "    imagen-fast pretrain --epoch 3",
        "    imagen-fast bench pixels --device cuda --jsn figures.json",
        "It is `imagen-fast bench nothing`.",
        "It is `imagen-fast predict image.jpg`.",
        "    make nonsense",
        "    pip install '.[nonsense]'",
        "    python -m imagen_fast.nonsense",
        "It is `python -m imagen_fast.benchmarks.tune --nonsense`.",
        "It is `pytest --nonsense`.",
        "It is `pytest nonsense/`.",
        "It is `python -P -m pytest nonsense/`.",
        "It is `python -P nonsense.py`.",
        "It is `python -P tests/benchmarks/importable/resampled_records.py --nonsense`.",
        "It is `imagen-fast bench compare one.json`.",
        "It is `imagen-fast profile --nonsense -- command`.",
        "    imagen-fast profile diff nothing nowhere",
    ],
)
def test_a_wrong_command_is_found(line, data, monkeypatch):
    monkeypatch.chdir(data)
    (example,) = examples("page.md", line)
    with pytest.raises((Exception, SystemExit)):
        run_shell(example, example.kind == "shell")


def test_the_pages_have_examples():
    found = {page: examples(page, (ROOT / page).read_text()) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/data.md", "docs/accelerate.md", "docs/drop-in.md"} <= {
        p for p in found if found[p]
    }
    lines = (
        "<!-- python\na = 1\n-->\n\n```python\nb = a\n```\n\n    make demo     # shows\n\nSay `make test`.\n"
    )
    kinds = [(e.line, e.kind, e.text.strip()) for e in examples("page.md", lines)]
    assert kinds == [
        (2, "python", "a = 1"),
        (6, "python", "b = a"),
        (9, "shell", "make demo     # shows"),
        (11, "named", "make test"),
    ]


def test_quick_replaces_what_the_table_says_and_nothing_else():
    assert quick(["pretrain", "--epochs", "200", "--data", "photos/"]) == [
        *("pretrain", "--data", "photos/", "--steps", "1", "--batch-size", "2")
    ]
    assert quick(["pretrain", "--out", "run", "--resume"]) == ["pretrain", "--out", "run", "--resume"]
    assert quick(["doctor"]) == ["doctor"]
    assert quick(["bench", "report", "figures.json"]) == ["bench", "report", "figures.json"]
    curves = quick(["bench", "attention", "--curves", "--json", "curves.json"])
    assert curves[-3:] == ["--quick", "--only", "N16 "]
