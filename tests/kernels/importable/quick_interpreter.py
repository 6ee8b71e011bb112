"""Triton's interpreter, without the search that took two fifths of its time.

At each call of a device function it looks through all of `triton.language` for what it must replace. Here the
names, which never change, are found once.
"""

import inspect
from functools import cache
from typing import Any

from triton.language.core import is_builtin
from triton.runtime import interpreter


@cache
def _builtins(package: Any) -> list[str]:
    return [name for name, member in inspect.getmembers(package) if is_builtin(member)]


def _patch_builtin(package: Any, *how: Any) -> None:
    for name in _builtins(package):
        # A caller that is interpreted too has replaced it already.
        if is_builtin(member := getattr(package, name)):
            interpreter._patch_attr(package, name, member, *how)


def install() -> None:
    interpreter._patch_builtin = _patch_builtin
