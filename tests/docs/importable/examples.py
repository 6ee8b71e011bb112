"""The commands and examples of a Markdown page, in the order in which they stand there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[3]
PAGES = tuple(
    sorted(
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *(ROOT / "docs").rglob("*.md")]
    )
)
PROGRAMS = ("imagen-fast", "make", "pip", "pytest", "python")
# What a fenced block is; `None` is nothing that runs. A block of another kind fails the tests.
KINDS = {
    "python": "python",
    "sh": "shell",
    "text": None,
    "math": None,
    "{toctree}": None,
    "{include}": None,
    "{eval-rst}": None,
    "{commands}": None,
}


@dataclass(frozen=True)
class Example:
    """Python, a line for a shell, or a command within a sentence.

    Attributes:
        line: of the page, from 1.
        kind: `python`, `shell` or `named`.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.strip().splitlines()[0]}"


class NoRule(AssertionError):
    """A block that nothing says how to test."""


def examples(page: str, text: str) -> list[Example]:
    """Those of a page: fenced blocks, indented ones, comments that begin with a kind, and code in sentences.

    An indented block is one for a shell. A comment that begins with `python` or `sh` holds what readers need
    not see.

    Raises:
        NoRule: a block is none of these.
    """
    found: list[Example] = []

    def add(kind: str | None, first: int, text: str) -> None:
        if kind == "python":
            found.append(Example(page, first, kind, text))
        elif kind == "shell":
            lines = enumerate(text.splitlines(), first)
            found.extend(Example(page, line, kind, words.strip()) for line, words in lines if words.strip())

    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else 0
        kind, _, rest = token.content.removeprefix("<!-- ").partition("\n")
        if token.type == "fence":
            info = token.info.split()[0] if token.info else ""
            if info not in KINDS:
                raise NoRule(f"{page}:{line}: no rule says how to test a block of {info or 'no kind'!r}")
            add(KINDS[info], line + 1, token.content)
        elif token.type == "code_block":
            add("shell", line, token.content)
        elif token.type == "html_block" and kind in KINDS:
            add(KINDS[kind], line + 1, rest.partition("-->")[0])
        elif token.type == "inline":
            spans = (child.content for child in token.children if child.type == "code_inline")
            commands = (span for span in spans if span.startswith(tuple(f"{p} " for p in PROGRAMS)))
            found += [Example(page, line, "named", command) for command in commands]
    return found
