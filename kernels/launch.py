"""Where kernels meet PyTorch: how an op is registered, how a kernel is launched, how a launch is recorded."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import library

from imagen_fast.operators import NAMESPACE, registered

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = INSTALLED and os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@dataclass(frozen=True)
class Launch:
    """What one launch hands to Triton: enough to compile the same kernel for a chip that is not here."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]


_recorded: list[Launch] | None = None
_capability: int | None = None


def launch(kernel: Any, programs: int, arguments: dict[str, Any], **options: int) -> None:
    """Run ``kernel`` on a 1-D grid: its limit is 2^31 - 1 programs, where y and z stop at 65535."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, options))
    elif programs > 0:
        # An interpreted kernel is a plain Python function, which wrap_triton of older releases refuses.
        run = kernel if INTERPRETED else library.wrap_triton(kernel)
        run[(programs,)](**arguments, **options)


@contextmanager
def recording(capability: int) -> Iterator[list[Launch]]:
    """Inside, launches are written down as chip ``capability`` would get them, and nothing runs."""
    global _recorded, _capability
    _recorded, _capability = [], capability
    try:
        yield _recorded
    finally:
        _recorded = _capability = None


def capability(device: torch.device) -> int:
    """The chip's compute capability, 90 for 9.0; asking the host never waits for the device."""
    if _capability is not None:
        return _capability
    if device.type == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(device)
        return 10 * major + minor
    return 80  # the interpreter, or tracing without a GPU: the shapes that fit everywhere


def processors(device: torch.device) -> int:
    """Multiprocessors of the device; asking never waits for it."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 1  # the interpreter, where a program shall get more than one turn


def unavailable(*arguments: torch.Tensor | None) -> str | None:
    """Why no kernel can run on these tensors at all, or None."""
    tensors = [argument for argument in arguments if argument is not None]
    if not INSTALLED:
        return "triton is not installed"
    if len({tensor.device for tensor in tensors}) > 1:
        return f"tensors lie on different devices: {sorted({str(tensor.device) for tensor in tensors})}"
    device = tensors[0].device
    if INTERPRETED:
        return None if device.type == "cpu" else f"the interpreter runs on CPU tensors, these are on {device}"
    if device.type != "cuda":
        return f"Triton kernels run on CUDA tensors, these are on {device}"
    if torch.version.hip is None and capability(device) < 80:
        return (
            f"kernels are compiled for compute capability 8.0 and up, this chip has {capability(device) / 10}"
        )
    return None


def register(name: str, fake: Callable) -> Callable[[Callable], library.CustomOpDef]:
    """Make ``imagen_fast::name``: an op that compilers can see into and fuse around.

    Under the interpreter it is an opaque op instead: a trace would run the interpreted kernel on
    tensors without memory.
    """
    make = library.triton_op if INSTALLED and not INTERPRETED else library.custom_op

    def decorate(function: Callable) -> library.CustomOpDef:
        op = make(f"{NAMESPACE}::{name}", function, mutates_args=())
        op.register_fake(fake)
        return op

    return decorate


def register_autocast(name: str, tensors: int) -> None:
    """Under autocast the first ``tensors`` arguments are cast to whatever dtype is then in force.

    ``torch.library.register_autocast`` would fix that dtype here, once for all.
    """
    op = getattr(registered, name).default

    def cast_for(device: str) -> Callable:
        def cast(*arguments: Any) -> Any:
            dtype = torch.get_autocast_dtype(device)
            with torch.autocast(device, enabled=False):
                return op(*(argument.to(dtype) for argument in arguments[:tensors]), *arguments[tensors:])

        return cast

    for device in ("cuda", "cpu"):
        library.impl(f"{NAMESPACE}::{name}", f"Autocast{device.upper()}", cast_for(device))
