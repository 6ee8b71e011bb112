"""Loads the compiled modules, each at most once, and says why one is missing."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

# First: it loads, for the whole process, the OpenMP library that the calls in _cpu bind to.
import torch

from imagen_fast.errors import BackendUnavailable


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        if "undefined symbol" not in str(error) or "omp" not in str(error).lower():
            raise
    # A torch that keeps its OpenMP library to itself, or has none: then the machine's own serves.
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
    return import_module(name)


@cache
def load(name: str) -> tuple[Any, str | None]:
    """The module `_cpu` or `_cuda` and None, or None and the reason why it is not there."""
    try:
        return _import(f"imagen_fast.native.{name}"), None
    except ModuleNotFoundError:
        return None, f"the module imagen_fast.native.{name} was not built"
    except (ImportError, OSError) as error:
        return None, f"the module imagen_fast.native.{name} does not load: {error}"


def cpu() -> Any:
    module, why = load("_cpu")
    if module is None:
        raise BackendUnavailable(f"{why}; `pip install -e .` builds it, a C++ compiler at hand")
    return module


def cuda() -> Any:
    module, why = load("_cuda")
    if module is None:
        raise BackendUnavailable(f"{why}; `pip install -e .` builds it where the CUDA toolkit is found")
    return module


def threads() -> int:
    """As many as PyTorch uses, in whichever thread this is called from."""
    return torch.get_num_threads()
