"""From what a user names to a source."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagen_fast.data.embedded import digits, photos
from imagen_fast.data.errors import UnknownData
from imagen_fast.data.hugging_face import HuggingFaceSource, is_saved
from imagen_fast.data.sources import FolderSource, Source
from imagen_fast.data.webdataset import TarSource, names_shards

if TYPE_CHECKING:
    from datasets import Dataset

EMBEDDED: Final = ("digits", "photos")


def open_source(
    data: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Dataset", *, tile: int = 64
) -> Source:
    """Open what `data` stands for.

    Args:
        data: the name of an embedded set; a folder of images; WebDataset's tar shards, as a path, a glob,
            with braces (`train-{000000..000012}.tar`), or a list of those; a Hugging Face dataset, or the
            folder that its `save_to_disk` wrote.
        tile: the side in pixels of the tiles of `photos`.

    A folder that bears the name of an embedded set is opened as `./digits`, of which a warning tells. Raises
    `UnknownData` and what the source does: see `FolderSource.scan`, `TarSource.scan`, `HuggingFaceSource.of`.
    """
    if isinstance(data, list | tuple):
        return TarSource.scan(data)
    if not isinstance(data, str | os.PathLike):
        return HuggingFaceSource.of(data)
    name = os.fspath(data)
    if name in EMBEDDED and Path(name).is_dir():
        warnings.warn(f"{name} is the embedded set; the folder of that name is ./{name}", stacklevel=2)
    if name == "digits":
        return digits()
    if name == "photos":
        return photos(tile)
    path = Path(name).expanduser()
    if names_shards(name) and not path.is_dir():
        return TarSource.scan(name)
    looks_like_a_name = os.sep not in name and not name.startswith((".", "~"))
    if not name or (looks_like_a_name and not path.exists()):
        sets = ", ".join(EMBEDDED)
        raise UnknownData(
            f"data {name!r} is neither a folder, nor tar shards, nor an embedded set; "
            f"the embedded sets are {sets}"
        )
    return HuggingFaceSource.load(path) if is_saved(path) else FolderSource.scan(name)
