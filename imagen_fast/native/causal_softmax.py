"""Softmax over the keys that each query of a grid sees: see csrc/cpu/causal_softmax.h."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.native import library
from imagen_fast.native.causal_attention import WindowNumbers
from imagen_fast.native.tensors import dtype_number


def causal_softmax_forward(scores: Tensor, window: WindowNumbers) -> Tensor:
    """Probabilities, contiguous, of scores [L, N, N] of any strides; float32 or bfloat16."""
    scores = _rows(scores)
    p = torch.empty(scores.shape, dtype=scores.dtype)
    library.cpu().causal_softmax_forward(
        window=tuple(window),
        layers=len(scores),
        dtype=dtype_number("scores", scores),
        scores=_view(scores),
        p=_view(p),
        threads=library.threads(),
    )
    return p


def causal_softmax_backward(d_p: Tensor, p: Tensor, window: WindowNumbers) -> Tensor:
    """The gradient of the scores, contiguous; d_p is of any strides."""
    d_p = _rows(d_p)
    d_scores = torch.empty(p.shape, dtype=p.dtype)
    library.cpu().causal_softmax_backward(
        window=tuple(window),
        layers=len(p),
        dtype=dtype_number("p", p),
        p=_view(p),
        d_p=_view(d_p),
        d_scores=_view(d_scores),
        threads=library.threads(),
    )
    return d_scores


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _view(x: Tensor) -> tuple[int, int, int]:
    return x.data_ptr(), x.stride(0), x.stride(1)
