"""Attention of pixels in generation order: the op.

    out[i] = sum_n p[i, n] v[n],  p[i, :] = softmax over the keys n that i sees of scale * q[i] . k[n]

The query (j, k) sees the key (y, x) if it comes no later in raster order, y >= j - above and
k - left <= x <= k + right; and every key whose raster number is below ``prefix``. Backward, with P made again
from each row's saved largest logit and sum:

    dv = p^T do,  ds = p * (dp - delta),  dp = do v^T,  delta = rowsum(do * out)
    dq = scale ds k,  dk = scale ds^T q

q, k, v are ``[B, N, H, D]`` in raster order, N = height * width; any strides with a contiguous last
dimension.
Products accumulate in fp32, statistics are fp32, and probabilities are rounded to the input's type before the
second product, as in FlashAttention (Dao et al., 2022, arXiv:2205.14135; its backward is that of Dao, 2023,
arXiv:2307.08691).

Rows of a product are a tile of pixels, 8 x 8 or 8 x 16, and not a run of the raster: what such a tile sees of
a quadrant or a neighbourhood is a rectangle of tiles, which the program walks; other tiles are never loaded,
and only those that the queries do not see whole are masked (causal_pixel_attention_tiles.py). All earlier
pixels of a grid are those of one line of N pixels: a tile is then a run, and no second code is needed. Tiles
that hold the prefix are walked first. A program finds all of this by arithmetic: there are no tables.

Bytes: q, k, v and out once forward, with 8 a row of statistics; twice q, k, v and do, out and the three
gradients backward, and 24 a row. With P the pairs of a query and a key that it sees: 4 P D operations and P
exponentials a head forward, 14 P D and 2 P backward, of which 10 P D and P are needed: no atomics, so that
the logits and dp are made twice.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels import launch
from imagen_fast.kernels.causal_pixel_attention_launch import run_backward, run_forward
from imagen_fast.kernels.causal_pixel_window import pairs
from imagen_fast.operators import registered

_TYPES = (torch.float16, torch.bfloat16, torch.float32)


def supports(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    height: int,
    width: int,
    above: int,
    left: int,
    right: int,
    prefix: int,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    if reason := launch.unavailable(q, k, v):
        return reason
    if not q.dtype == k.dtype == v.dtype or q.dtype not in _TYPES:
        return f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}: all float16, bfloat16 or float32 is served"
    if q.ndim != 4 or not q.shape == k.shape == v.shape or q.shape[1] != height * width:
        return (
            f"q, k, v have shapes {list(q.shape)}, {list(k.shape)}, {list(v.shape)}: "
            f"[B, {height * width}, H, D] for the {height}x{width} pixels is served"
        )
    if not 1 <= q.shape[-1] <= 128:
        return f"head width is {q.shape[-1]}: 1 to 128 is served"
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
            return f"the last dimension of {name} has stride {tensor.stride(-1)}: 1 is served"
    return None


def causal_pixel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    height: int,
    width: int,
    above: int,
    left: int,
    right: int,
    prefix: int,
    scale: float,
) -> Tensor:
    """Checks nothing, as that would cost more than a small launch: callers ask ``supports`` first."""
    return _forward(q, k, v, height, width, above, left, right, prefix, scale)[0]


def _fake_forward(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    statistics = q.new_empty((q.shape[0], q.shape[2], 2, q.shape[1]), dtype=torch.float32)
    return q.new_empty(q.shape), statistics


def _fake_backward(d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


_forward = launch.register("causal_pixel_attention_triton", _fake_forward)(run_forward)
_backward = launch.register("causal_pixel_attention_backward_triton", _fake_backward)(run_backward)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.mark_non_differentiable(output[1])
    ctx.window_and_scale = inputs[3:]


def _differentiate(ctx: Any, d_out: Tensor, _: Tensor | None) -> tuple:
    return *_backward(d_out, *ctx.saved_tensors, *ctx.window_and_scale), *(None,) * 7


_forward.register_autograd(_differentiate, setup_context=_save)
launch.register_autocast("causal_pixel_attention_triton", 3)


@register_flop_formula(registered.causal_pixel_attention_triton)
def forward_flops(q_shape, k_shape, v_shape, *window_and_scale, out_shape=None, **__) -> int:
    """Two products of the pairs that see each other."""
    images, _, heads, width = q_shape
    return 4 * images * heads * width * pairs(*window_and_scale[:6])


@register_flop_formula(registered.causal_pixel_attention_backward_triton)
def backward_flops(
    d_out_shape, q_shape, k_shape, v_shape, o_shape, statistics_shape, *window_and_scale, out_shape=None, **__
) -> int:
    """Five products: the logits again, dp, dv, dk and dq."""
    images, _, heads, width = q_shape
    return 10 * images * heads * width * pairs(*window_and_scale[:6])


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of both launchers. What takes the most registers: a neighbourhood with a prefix."""

    def both(qkv: Tensor, window: tuple[int, ...]) -> None:
        q, k, v = qkv.unbind(2)
        out, statistics = run_forward(q, k, v, *window, 0.125)
        d_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        run_backward(d_out, q, k, v, out, statistics, *window, 0.125)

    raster, quadrant, near = (32, 32, 32, 32, 32, 0), (32, 32, 32, 32, 0, 0), (32, 32, 3, 3, 3, 40)
    cases = (
        ("Raster 32x32", raster, 64, torch.bfloat16),
        ("Quadrant 32x32", quadrant, 64, torch.bfloat16),
        ("Quadrant 32x32", quadrant, 128, torch.bfloat16),
        *(("Neighbourhood(3) 32x32 prefix", near, width, torch.bfloat16) for width in (32, 64, 128)),
        *(("Neighbourhood(3) 32x32 prefix", near, width, torch.float32) for width in (32, 64, 128)),
    )
    for name, window, width, dtype in cases:
        qkv = torch.empty((8, 1024, 3, 12, width), dtype=dtype, device="meta")
        yield f"{name} D={width} {str(dtype).removeprefix('torch.')}", partial(both, qkv, window)
