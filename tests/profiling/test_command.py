"""`imagen-fast profile` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from imagen_fast.cli import main
from imagen_fast.profiling import page, recording

PYTHON = (sys.executable, "-S", "-c")


class Called(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    # Where a profile goes that has no folder named.
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(["profile", *map(str, words)])
        printed = capfd.readouterr()
        return Called(end.value.code or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """A folder with the profile of a program that fails, and what was printed."""
    folder = tmp_path_factory.mktemp("profiled") / "new"
    words = [sys.executable, "-P", "-m", "imagen_fast", "profile", "--out", folder, "--interval", "0.1", "--"]
    code = "import sys, time; time.sleep(0.5); print(sys.argv[1:]); sys.exit(3)"
    done = subprocess.run([*words, *PYTHON, code, "--out", "--", "-h"], capture_output=True, text=True)
    return folder, Called(done.returncode, done.stdout, done.stderr)


def test_a_program_that_fails_keeps_its_status_its_words_and_its_profile(profiled):
    folder, called = profiled
    assert called.status == 3
    assert called.out == "['--out', '--', '-h']\n"
    assert "profile: Unknown: " in called.err
    assert f"{folder}/profile.html, .png, .json" in called.err
    assert sorted(path.name for path in folder.iterdir()) == ["profile.html", "profile.json", "profile.png"]
    made, kept = recording.read(folder / "profile.json")
    assert made.exit_code == 3
    assert made.command[-3:] == ["--out", "--", "-h"]
    assert kept["verdict"]["bottleneck"] == "unknown"
    assert made.samples.interval == 0.1


def test_page_and_picture_are_made_again_from_the_record(profiled, call, tmp_path):
    folder, _ = profiled
    record = tmp_path / "moved.json"
    record.write_text((folder / "profile.json").read_text())
    assert call("report", record) == (0, f"{tmp_path}/moved.html\n{tmp_path}/moved.png\n", "")
    assert (tmp_path / "moved.png").read_bytes().startswith(b"\x89PNG")


def test_two_profiles_are_compared_by_file_or_folder(profiled, call):
    folder, _ = profiled
    called = call("diff", folder, folder / "profile.json")
    assert called.status == 0
    assert called.out.startswith("Unclear: ")


def test_without_a_program_nothing_is_written(call, tmp_path):
    assert call("--out", tmp_path / "x", "--", "no-such-program-here") == (
        127,
        "",
        "error: the command 'no-such-program-here' was not found\n",
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the command to run is missing"),
        (("--",), "the command to run is missing"),
        (("--interval", "0", "--", "true"), "0.01 to 3600"),
        (("--interval", "soon", "--", "true"), "soon"),
        (("--window", "-1", "--", "true"), "0 or more"),
        (("--wat", "--", "true"), "--wat"),
        (("diff", "one.json"), "B"),
        (("diff", "one.json", "two.json"), "one.json cannot be read as a profile"),
        (("report", __file__), "cannot be read as a profile"),
    ],
)
def test_a_mistake_is_one_sentence(call, words, said):
    called = call(*words)
    assert called.status == 2
    assert said in called.err
    assert called.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_said_before_the_program_runs(call, tmp_path):
    (tmp_path / "file").write_text("")
    called = call("--out", tmp_path / "file" / "x", "--", *PYTHON, "print('ran')")
    assert called.status == 2
    assert called.out == ""
    assert "cannot be written to" in called.err


def test_a_program_named_as_one_of_our_own_words_is_run_after_two_dashes(call, tmp_path, monkeypatch):
    program = tmp_path / "diff"
    program.write_text("#!/bin/sh\necho ours: $*\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert call("--", "diff", "a", "b")[:2] == (0, "ours: a b\n")
    assert len(list(tmp_path.glob("profile-*/profile.json"))) == 1


def test_who_interrupts_the_drawing_has_the_record(monkeypatch, call, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "write", interrupt)
    assert call("--out", tmp_path, "--", *PYTHON, "").status == 130
    assert json.loads((tmp_path / "profile.json").read_text())["exit_code"] == 0


def test_without_matplotlib_there_is_no_picture_and_all_the_rest(monkeypatch, call, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    called = call("--out", tmp_path, "--", *PYTHON, "raise SystemExit(4)")
    assert called.status == 4
    assert "no picture: drawing needs the package matplotlib" in called.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profile.html", "profile.json"]


def test_the_status_is_the_programs_though_its_profile_cannot_be_written(call, tmp_path):
    # A folder in the place of the record.
    code = f"import os; os.makedirs({str(tmp_path / 'profile.json' / 'x')!r})"
    called = call("--out", tmp_path, "--", *PYTHON, code)
    assert called.status == 0
    assert "profile.json cannot be written" in called.err


def test_help_names_everything(call):
    called = call("--help")
    assert called.status == 0
    for word in ("--out", "--live", "--interval", "--window", "--ceilings", "diff", "report"):
        assert word in called.out
