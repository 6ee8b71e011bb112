"""Softmax of scores over the pixels that come earlier: the op.

    p[l, i, n] = exp(s[l, i, n] - max) / sum over the keys n that i sees, 0 for the others
    ds = p * (dp - sum(p * dp))

scores are ``[L, N, N]`` of queries and keys in raster order, any strides; who sees whom is said as for
``causal_pixel_attention``. Arithmetic is fp32 whatever the type. Up to 8192 keys a row is whole in registers
and read once; longer ones are read twice, in tiles. What is not seen is never read.

Bytes of a matrix, with P the pairs that see each other and 2 or 4 bytes a number: P + N^2 numbers forward,
2 P + N^2 backward, with P about N^2 / 2 for all earlier pixels, N^2 / 4 for a quadrant. P exponentials
forward, about five operations a pair. Memory sets the time.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels import launch
from imagen_fast.kernels.causal_pixel_window import Window, simplest
from imagen_fast.operators import registered

if launch.INSTALLED:
    from imagen_fast.kernels.causal_pixel_softmax_rows import causal_softmax_backward, causal_softmax_forward

_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_WHOLE = 8192  # keys of a row in registers: 16 for each thread of 16 warps
_TILE = 2048  # numbers a program takes at a time, where a row is shorter or read in tiles: 16 a thread
_A_WARP = 512


class Tile(NamedTuple):
    rows: int
    lines: int
    columns: int
    whole: bool

    @property
    def warps(self) -> int:
        return max(1, self.rows * self.lines * self.columns // _A_WARP)


def _side(size: int, most: int) -> int:
    """The power of two that holds ``size``, or ``most``: comparisons alone, as symbolic sizes want."""
    side = 1
    while side < size and side < most:
        side *= 2
    return side


def tile(window: Window) -> Tile:
    lines, columns = _side(window.height, _WHOLE), _side(window.width, _WHOLE)
    if window.height <= lines and window.width <= columns and lines * columns <= _WHOLE:
        return Tile(max(1, _TILE // (lines * columns)), lines, columns, True)
    columns = min(columns, _TILE)
    return Tile(1, _TILE // columns, columns, False)


def _launch(kernel: Any, read: Tensor, window: Window, tensors: dict[str, Tensor]) -> None:
    """``read`` is the tensor whose strides are the caller's."""
    shape = tile(window)
    matrix_stride, query_stride, key_stride = read.stride()
    total = read.shape[0] * read.shape[1]
    arguments = {
        **tensors,
        **window._asdict(),
        "matrix_stride": matrix_stride,
        "query_stride": query_stride,
        "key_stride": key_stride,
        "total": total,
        "ROWS": shape.rows,
        "LINES": shape.lines,
        "COLUMNS": shape.columns,
        "WHOLE": shape.whole,
    }
    programs = (total + shape.rows - 1) // shape.rows
    launch.launch(kernel, programs, arguments, num_warps=shape.warps, num_stages=1)


def run_forward(
    scores: Tensor, height: int, width: int, above: int, left: int, right: int, prefix: int
) -> Tensor:
    window = simplest(height, width, above, left, right, prefix)
    p = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
    _launch(causal_softmax_forward, scores, window, {"scores": scores, "p": p})
    return p


def run_backward(
    d_p: Tensor, p: Tensor, height: int, width: int, above: int, left: int, right: int, prefix: int
) -> Tensor:
    window = simplest(height, width, above, left, right, prefix)
    d_scores = torch.empty(p.shape, dtype=p.dtype, device=p.device)
    _launch(causal_softmax_backward, d_p, window, {"d_p": d_p, "p": p, "d_scores": d_scores})
    return d_scores


def supports(
    scores: Tensor, height: int, width: int, above: int, left: int, right: int, prefix: int
) -> str | None:
    """Why the kernels cannot serve these scores, or None. Reads shapes only, never values."""
    if reason := launch.unavailable(scores):
        return reason
    pixels = height * width
    if scores.dtype not in _TYPES:
        return f"scores are {scores.dtype}: float16, bfloat16 or float32 is served"
    if scores.ndim != 3 or scores.shape[1:] != (pixels, pixels):
        return (
            f"scores have shape {list(scores.shape)}: [L, {pixels}, {pixels}] for the {height}x{width} "
            "pixels is served"
        )
    return None


def _fake_forward(scores: Tensor, *_: Any) -> Tensor:
    return scores.new_empty(scores.shape)


def _fake_backward(d_p: Tensor, p: Tensor, *_: Any) -> Tensor:
    return p.new_empty(p.shape)


causal_pixel_softmax = launch.register("causal_pixel_softmax_triton", _fake_forward)(run_forward)
_backward = launch.register("causal_pixel_softmax_backward_triton", _fake_backward)(run_backward)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.window = inputs[1:]


def _differentiate(ctx: Any, d_p: Tensor) -> tuple:
    return _backward(d_p, *ctx.saved_tensors, *ctx.window), *(None,) * 6


# No rule for autocast: the type of the scores is the caller's, and the arithmetic is fp32.
causal_pixel_softmax.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(
    [
        registered.causal_pixel_softmax_triton,
        registered.causal_pixel_softmax_backward_triton,
    ]
)
def flops(*_: Any, **__: Any) -> int:
    """PyTorch's counter counts matrix products, and this op has none."""
    return 0


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of both launchers: short rows, whole long ones, and those read in tiles."""

    def both(scores: Tensor, window: tuple[int, ...]) -> None:
        d_p = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
        run_backward(d_p, run_forward(scores, *window), *window)

    cases = (
        ("Quadrant 32x32", (32, 32, 32, 32, 0, 0), torch.bfloat16),
        ("Neighbourhood(3) 90x90 prefix", (90, 90, 3, 3, 3, 8), torch.bfloat16),
        ("Raster 64x64", (64, 64, 64, 64, 64, 0), torch.float32),
        ("Quadrant 100x100", (100, 100, 100, 100, 0, 0), torch.float32),
    )
    for name, window, dtype in cases:
        pixels = window[0] * window[1]
        scores = torch.empty((8, pixels, pixels), dtype=dtype, device="meta")
        yield f"{name} {str(dtype).removeprefix('torch.')}", partial(both, scores, window)
