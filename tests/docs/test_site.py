"""The documentation site: built without a warning, whole, and read without a network."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType

import pytest
import typer

from examples import ROOT
from imagen_fast.benchmarks import cli as bench
from imagen_fast.cli import profile
from imagen_fast.cli.app import app
from imagen_fast.profiling import findings, recording

# What a browser loads of its own accord; a link is followed by a reader.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)\"|<link[^>]*\srel=\"(?:stylesheet|preload|preconnect)\"[^>]*>"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "sphinx", "-q", "-W", "--keep-going", "docs", out]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    return out


def test_a_page_needs_no_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for found in LOADED.finditer(page.read_text()):
            assert "//" not in found[0], f"{page.name} loads {found[0]}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet.name


def test_formulas_are_drawn_by_the_browser(site):
    source, page = (ROOT / "docs" / "operations.md").read_text(), (site / "operations.html").read_text()
    assert page.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') == source.count(
        "```math"
    )
    assert "\\operatorname" not in page


def test_every_command_and_option_is_there(site):
    page = (site / "command-line.html").read_text()
    for name, command in typer.main.get_command(app).commands.items():
        section = page.partition(f'id="imagen-fast-{name}"')[2].partition("</section>")[0]
        assert section, f"{name} is not there"
        for parameter in command.params:
            for option in parameter.opts:
                assert option in section, f"{name} lacks {option}"
    assert "--readme" in page
    assert "--ceilings" in page
    for name, words in (("bench", bench.COMMANDS), ("profile", profile.COMMANDS)):
        for word in words:
            assert f"usage: imagen-fast {name} {word}" in page


@pytest.mark.parametrize("room", ["ops", "data", "models", "objectives", "train"])
def test_every_public_name_is_there(site, room):
    page = (site / "api" / f"{room}.html").read_text()
    module = importlib.import_module(f"imagen_fast.{room}")
    for name in module.__all__:
        # A constant has no docstring, nor has a union of types.
        if callable(getattr(module, name)) and not isinstance(getattr(module, name), UnionType):
            assert f'id="imagen_fast.{room}.{name}"' in page, name


def test_what_a_profile_holds_is_there(site):
    page = (site / "api" / "profiling.html").read_text()
    assert 'id="imagen_fast.profile"' in page
    for module in (recording, findings):
        for name, found in vars(module).items():
            if is_dataclass(found) and not name.startswith("_"):
                assert f'id="{module.__name__}.{name}"' in page, name
                for argument in re.findall(r"^ {8}(\w+):", (found.__doc__ or "").partition("Args:")[2], re.M):
                    assert f"<strong>{argument}</strong>" in page, f"{name}.{argument}"


def test_the_tables_of_the_operations_are_up_to_date(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    from imagen_fast.benchmarks import operations

    monkeypatch.chdir(ROOT)
    page = tmp_path / "operations.md"
    written = operations.DOCUMENT.read_text()
    page.write_text(
        re.sub(r"(<!-- figures:\S+ -->\n).*?(<!-- /figures -->)", r"\1\2", written, flags=re.DOTALL)
    )
    operations.main(page)
    assert page.read_text() == written, "`make tables` makes them again"
    assert {f"figures:{name}-bound" for name in operations.SHOWN} <= set(re.findall(r"figures:\S+", written))
