"""Runs before the first line of a program that is profiled: the profiler puts this folder on its path.

It must never be the reason that a program does not run, and hides no `sitecustomize` of the user's.
"""

import importlib
import os
import sys


def _run_the_users() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    path, ours = sys.path[:], sys.modules.pop("sitecustomize")
    sys.path[:] = [entry for entry in path if os.path.abspath(entry or ".") != here]
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.path[:] = path
        sys.modules.setdefault("sitecustomize", ours)  # Python looks for it when we are done


def _begin() -> None:
    try:
        from imagen_fast.profiling import program
    except ImportError:
        return  # another Python, without this package: the run is sampled from outside alone
    program.begin()


_run_the_users()
_begin()
