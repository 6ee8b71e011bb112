"""The directive `{commands}`: every command of `imagen-fast` with every option, as its parsers know them."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import Any
from unittest import mock

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from imagen_fast.benchmarks import cli as bench
from imagen_fast.cli import main, profile
from imagen_fast.cli.app import app

# What has a parser of its own tells itself what it takes; each has words with parsers of theirs.
OWN_PARSER = {"bench": bench.COMMANDS, "profile": profile.COMMANDS}
WIDTH = "88"  # of a help text as it is printed, in characters
# At the end of a help text, where typer and we ourselves put it; ours is escaped, since rich takes brackets.
DEFAULT = re.compile(r"\s*\\?\[(?:default: )?([^\[\]]*)\]$")


class Commands(SphinxDirective):
    """A section a command."""

    def run(self) -> list[nodes.Node]:
        group: Any = typer.main.get_command(app)
        return [self.section(name, command) for name, command in group.commands.items()]

    def section(self, name: str, command: Any) -> nodes.section:
        section = nodes.section(ids=[f"imagen-fast-{name}"])
        section += nodes.title(text=name)
        section += nodes.paragraph("", *self.parse_inline(command.help, lineno=self.lineno)[0])
        if name in OWN_PARSER:
            section += [nodes.literal_block(text, text, language="text") for text in told(name)]
        else:
            context = typer.Context(command, info_name=f"imagen-fast {name}")
            usage = command.get_usage(context).removeprefix("Usage: ")
            section += nodes.literal_block(usage, usage, language="text")
            section += self.table([p.get_help_record(context) for p in command.params])
        return section

    def table(self, records: list[tuple[str, str]]) -> nodes.table:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (30, 50, 20)), cols=3)
        rows = [self.row(*map(nodes.Text, ("option", "what it is", "default")))]
        group += nodes.thead("", *rows)
        body = nodes.tbody()
        for option, help in records:
            found = DEFAULT.search(help)
            about, default = (help[: found.start()], found[1]) if found else (help, "")
            body += self.row(nodes.literal(text=option), nodes.Text(about), nodes.Text(default))
        group += body
        return nodes.table("", group, classes=["options"])

    def row(self, *cells: nodes.Node) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def told(name: str) -> Iterator[str]:
    """What a command prints for `--help`, and then each of its words."""
    for words in ([name], *([name, word] for word in OWN_PARSER[name])):
        printed = io.StringIO()
        with mock.patch.dict(os.environ, COLUMNS=WIDTH), redirect_stdout(printed), suppress(SystemExit):
            main([*words, "--help"])
        yield printed.getvalue().rstrip()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
