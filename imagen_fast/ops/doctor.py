"""Which back-end serves each operation here, found out by running it, and why a faster one does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor

from imagen_fast.errors import BackendUnavailable
from imagen_fast.ops.contexts import Quadrant, Visible
from imagen_fast.ops.dispatch import preference
from imagen_fast.ops.functional import (
    causal_pixel_attention,
    causal_pixel_softmax,
    masked_patch_attention,
    masked_pixel_mse,
    pixel_cross_entropy,
    pixel_logistic_mixture,
)


class Finding(TypedDict):
    """One operation on one kind of device in one type.

    `backend` is the one that calls take by themselves, None where there is no such device; `refused` says of
    each faster one why it does not serve.
    """

    op: str
    device: str
    dtype: str
    backend: str | None
    refused: dict[str, str]


def _attend(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    """In place, eight tokens of which three are hidden."""
    q, k, v = torch.randn(3, 2, 8, 2, 32, device=device, dtype=dtype).requires_grad_().unbind()
    hidden = torch.arange(8, device=device).expand(2, -1) < 3
    return masked_patch_attention(q, k, v, Visible.in_place(hidden), backend=backend)


def _pixel_error(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    """The loss of four patches of 4x4 pixels of which two are hidden."""
    prediction = torch.randn(2, 4, 48, device=device, dtype=dtype, requires_grad=True)
    image = torch.rand(2, 3, 8, 8, device=device)
    hidden = torch.arange(4, device=device).expand(2, -1) < 2
    return masked_pixel_mse(prediction, image, hidden, backend=backend)


def _attend_causally(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    """Sixteen pixels of which each sees those above it and to its left."""
    q, k, v = torch.randn(3, 2, 16, 2, 32, device=device, dtype=dtype).requires_grad_().unbind()
    return causal_pixel_attention(q, k, v, (4, 4), Quadrant(), backend=backend)


def _causal_softmax(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    scores = torch.randn(2, 16, 16, device=device, dtype=dtype, requires_grad=True)
    # The sum of probabilities has no gradient.
    return causal_pixel_softmax(scores, (4, 4), Quadrant(), backend=backend).square()


def _cross_entropy(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    """Of 64 pixels of 256 levels."""
    hidden = torch.randn(64, 32, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(256, 32, device=device, dtype=dtype, requires_grad=True)
    target = torch.arange(64, device=device, dtype=torch.uint8)
    return pixel_cross_entropy(hidden, weight, target, backend=backend)


def _logistic_mixture(device: str, dtype: torch.dtype, backend: str) -> Tensor:
    """Of 64 pixels of 256 levels, ten logistics each."""
    hidden = torch.randn(64, 32, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(30, 32, device=device, dtype=dtype, requires_grad=True)
    target = torch.arange(64, device=device, dtype=torch.uint8)
    return pixel_logistic_mixture(hidden, weight, target, backend=backend)


_PROBES: dict[str, Callable[[str, torch.dtype, str], Tensor]] = {
    "masked_patch_attention": _attend,
    "masked_pixel_mse": _pixel_error,
    "causal_pixel_attention": _attend_causally,
    "causal_pixel_softmax": _causal_softmax,
    "pixel_cross_entropy": _cross_entropy,
    "pixel_logistic_mixture": _logistic_mixture,
}


def examine_operations() -> list[Finding]:
    """Try every operation, forward and backward, on a small case of each kind of device and type."""
    return [
        _examine(op, device, dtype)
        for op in _PROBES
        for device in ("cpu", "cuda")
        for dtype in (torch.float32, torch.bfloat16)
    ]


def _examine(op: str, device: str, dtype: torch.dtype) -> Finding:
    found: Finding = {
        "op": op,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "backend": None,
        "refused": {},
    }
    order = preference(device)
    if device == "cuda" and not torch.cuda.is_available():
        found["refused"] = {order[0]: "there is no CUDA device here"}
        return found
    for backend in order:
        try:
            _PROBES[op](device, dtype, backend).sum().backward()
        except BackendUnavailable as error:
            found["refused"][backend] = str(error).rpartition("cannot serve this call: ")[2]
        except Exception as error:  # a broken driver or compiler: it is what the doctor is asked for
            found["refused"][backend] = f"it fails: {type(error).__name__}: {error}"
        else:
            found["backend"] = backend
            break
    return found


def no_cuda_because() -> str | None:
    """Why there is no CUDA device; None where there is one."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return str(error).splitlines()[0].partition(". ")[0]
    return "PyTorch finds no CUDA device"
