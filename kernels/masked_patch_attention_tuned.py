"""Block shapes that a stopwatch chose: ``tables/sm_90.json`` and its like, as ``benchmarks/tune.py`` writes.

A table is a JSON object whose ``entries`` name a kernel, the row of keys that it holds (0 for rows of any
length), the tile of the head width, a type, the blocks, and the times that chose them. Where there is no
table or no entry, the shapes derived in ``masked_patch_attention_shapes.py`` stay.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.kernels.masked_patch_attention_shapes import WHOLE_ROW, Blocks, Case, key_row, power_of_two

FOLDER = Path(__file__).parent / "tables"
_tried: dict[str, Blocks] = {}
_asked: dict[str, Blocks] | None = None


class Key(NamedTuple):
    """What an entry is for. Half types have one entry: their tiles are of the same bytes."""

    kernel: str
    keys: int
    width: int
    type: str


def key(kernel: str, k_longest: int, width: int, dtype: torch.dtype) -> Key:
    keys = key_row(k_longest) if k_longest <= WHOLE_ROW else 0
    return Key(kernel, keys, power_of_two(width), "float32" if dtype == torch.float32 else "half")


def path(capability: int) -> Path:
    return FOLDER / f"sm_{capability}.json"


@lru_cache
def table(capability: int) -> dict[Key, Blocks]:
    """Empty where there is none for this chip.

    Raises:
        InvalidInput: the file is no table.
    """
    file = path(capability)
    if not file.exists():
        return {}
    try:
        entries = json.loads(file.read_text())["entries"]
        return {Key(*(entry[name] for name in Key._fields)): Blocks(**entry["blocks"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file} is no table of block shapes: {type(error).__name__}, {error}") from error


def tuned(kernel: str, k_longest: int, case: Case, derived: Blocks) -> Blocks:
    """The blocks of a launch: those being tried, else the table's, else the derived ones.

    No table has a rotary embedding or a bias, which take more registers: there the derived ones stay.
    """
    timed = {} if case.placed else table(case.capability)
    blocks = _tried.get(kernel) or timed.get(key(kernel, k_longest, case.width, case.dtype), derived)
    if _asked is not None:
        _asked[kernel] = blocks
    return blocks


@contextmanager
def trying(kernel: str, blocks: Blocks) -> Iterator[None]:
    """Inside, launches of ``kernel`` have these blocks: for the tuner."""
    _tried[kernel] = blocks
    try:
        yield
    finally:
        del _tried[kernel]


@contextmanager
def asked() -> Iterator[dict[str, Blocks]]:
    """What launches inside are given, by kernel."""
    global _asked
    _asked = given = {}
    try:
        yield given
    finally:
        _asked = None
