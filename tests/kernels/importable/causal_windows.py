"""Causal windows, and the definition of what they let see, in plain PyTorch."""

import torch
from torch import Tensor

Window = tuple[int, int, int, int, int, int]


def windows(height: int, width: int, prefix: int = 0) -> dict[str, Window]:
    """height, width, above, left, right, prefix: each kind of context."""
    made = {"raster": (height, width, width), "quadrant": (height, width, 0)}
    made |= {f"{radius}": (radius, radius, 0) for radius in (0, 1, 3)}
    made |= {f"{radius} raster": (radius, radius, radius) for radius in (0, 1, 3)}
    return {
        name: (height, width, min(above, height), min(left, width), min(right, width), prefix)
        for name, (above, left, right) in made.items()
    }


def visible(height: int, width: int, above: int, left: int, right: int, prefix: int) -> Tensor:
    """[N, N] bool: row i is true where query i sees the key."""
    i = torch.arange(height * width)
    j, k = i // max(width, 1), i % max(width, 1)
    down, along = j[:, None] - j, k[:, None] - k
    near = (down <= above) & (along <= left) & (along >= -right)
    return ((i <= i[:, None]) & near) | (i < prefix)


def softmax(scores: Tensor, seen: Tensor) -> Tensor:
    return scores.masked_fill(~seen.to(scores.device), float("-inf")).softmax(-1)


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    p = softmax(torch.einsum("bmhd,bnhd->bhmn", q, k) * scale, seen)
    return torch.einsum("bhmn,bnhd->bmhd", p, v)


def with_gradients(function, tensors: tuple[Tensor, ...], d_out: Tensor, dtype: torch.dtype) -> tuple:
    leaves = tuple(x.detach().to(dtype).requires_grad_() for x in tensors)
    out = function(*leaves)
    return out, *torch.autograd.grad(out, leaves, d_out.to(dtype))
