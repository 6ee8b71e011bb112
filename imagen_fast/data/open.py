"""From what a user names to a source."""

import os
from pathlib import Path
from typing import Final

from imagen_fast.data.embedded import digits, photos
from imagen_fast.data.errors import UnknownData
from imagen_fast.data.sources import FolderSource, Source

EMBEDDED: Final = ("digits", "photos")


def open_source(data: str | os.PathLike[str], *, tile: int = 64) -> Source:
    """Open an embedded set by its name, or a folder by its path.

    `tile` is the side in pixels of the tiles of `photos`. A folder that bears the name of an embedded set
    is opened as `./digits`. Raises `UnknownData`, `MissingFolder`, `NoImages` or `MissingPackage`.
    """
    name = os.fspath(data)
    if name == "digits":
        return digits()
    if name == "photos":
        return photos(tile)
    looks_like_a_name = os.sep not in name and not name.startswith((".", "~"))
    if not name or (looks_like_a_name and not Path(name).exists()):
        sets = ", ".join(EMBEDDED)
        raise UnknownData(
            f"data {name!r} is neither a folder nor an embedded set; the embedded sets are {sets}"
        )
    return FolderSource.scan(name)
