"""Text that a command makes, kept up to date in a Markdown file that people write."""

from __future__ import annotations

import re
from pathlib import Path

from imagen_fast.errors import InvalidInput


def put_into(file: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- figures:NAME -->` and the next `<!-- /figures -->`.

    Raises:
        InvalidInput: the file cannot be read, or lacks the markers.
    """
    try:
        before = file.read_text()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    start, end = f"<!-- figures:{name} -->", "<!-- /figures -->"
    between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not between.search(before):
        raise InvalidInput(f"{file} lacks the markers {start} and {end} that the text goes between")
    file.write_text(between.sub(lambda _: f"{start}\n{text}\n{end}", before, count=1))
