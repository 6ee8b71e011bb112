"""Attention among patches when every image hides its own set: the op.

    out[i] = sum_j p[i, j] v[j],  p[i, :] = softmax over the image's listed keys of scale * q[i] . k[j]

and zero where no key is listed or the row is not asked for. Backward, with P recomputed:

    dv = p^T do,  ds = scale * p * (dp - rowsum(p * dp)),  dp = do v^T,  dq = ds k,  dk = ds^T q

q is ``[B, M, H, D]`` or packed ``[T, H, D]``; k and v ``[B, N, H, D]`` or packed; any strides with a
contiguous last dimension. ``spans`` (int32 ``[B, 2]``) holds start and count of each image's rows;
without it every image has all rows. ``index`` (int32 ``[B, L]``) lists the rows, ``start + index[b, i]``;
without it they are consecutive. No row may be listed twice. ``longest`` is an upper bound of the counts,
known on the host. Products accumulate in fp32, statistics are fp32, and probabilities are rounded to the
input's type before the second product, as in FlashAttention (Dao et al., 2022, arXiv:2205.14135).

Two options look up where on the grid a token lies: its row number, or ``places`` (int32, one a row of the
tensor). ``cos`` and ``sin`` (fp32 ``[P, D/2]``) turn q and k by their place as they are loaded, and their
gradients back as they are stored (rotary.py). ``bias`` (``[H, P, P']``, finite) is added to the scaled
logits; its gradient needs the places of an image's rows to differ, and is one kernel more.

The op checks nothing, as that would cost more than a small launch: callers ask ``supports`` first.
A row of up to 256 logits is whole in registers, and its backward one kernel; longer rows rescale block by
block and take two kernels backward.

Bytes: q, k, v and out once forward; q, k, v, do and the three gradients once backward, plus 8 bytes a
row, written and read back, where a second phase or the gradient of a bias needs them. Operations:
4 M N D a head forward, 10 M N D backward, two of them to make the logits again, and 4 M N D for the
gradient of a bias.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels import launch
from imagen_fast.kernels.masked_patch_attention_launch import (
    images_of,
    run_backward,
    run_forward,
    run_forward_with_lse,
)
from imagen_fast.kernels.masked_patch_attention_shapes import WIDEST_PLACED
from imagen_fast.operators import registered

_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_NAMES = "float16, bfloat16 or float32"


def supports(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None = None,
    q_index: Tensor | None = None,
    k_spans: Tensor | None = None,
    k_index: Tensor | None = None,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    bias: Tensor | None = None,
    q_places: Tensor | None = None,
    k_places: Tensor | None = None,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    if reason := launch.unavailable(
        q, k, v, q_spans, q_index, k_spans, k_index, cos, sin, bias, q_places, k_places
    ):
        return reason
    if not q.dtype == k.dtype == v.dtype or q.dtype not in _TYPES:
        return f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}: all {_NAMES} is served"
    if q.ndim not in (3, 4) or k.ndim not in (3, 4) or k.shape != v.shape or q.shape[-2:] != k.shape[-2:]:
        return (
            f"q, k, v have shapes {list(q.shape)}, {list(k.shape)}, {list(v.shape)}: [B, N, H, D] or packed "
            "[T, H, D] with one H and one D are served"
        )
    if not 1 <= q.shape[-1] <= 128:
        return f"head width is {q.shape[-1]}: 1 to 128 is served"
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
            return f"the last dimension of {name} has stride {tensor.stride(-1)}: 1 is served"
    images = images_of(q, q_spans), images_of(k, k_spans)
    for name, tensor, spans, index in (("q", q, q_spans, q_index), ("k", k, k_spans, k_index)):
        if spans is None and (tensor.ndim == 3 or index is not None):
            return f"{name} is packed or has an index, but no spans: both need each image's start and count"
        if spans is not None and (spans.dtype != torch.int32 or spans.shape != (images[0], 2)):
            return f"{name}_spans is {spans.dtype} {list(spans.shape)}: int32 [{images[0]}, 2] is served"
        if index is not None and (index.dtype != torch.int32 or index.shape[:-1] != (images[0],)):
            return f"{name}_index is {index.dtype} {list(index.shape)}: int32 [{images[0]}, L] is served"
        if tensor.ndim == 4 and tensor.shape[0] != images[0]:
            return f"{name} has {tensor.shape[0]} images: all tensors and tables must have {images[0]}"
    if images[0] != images[1]:
        return f"q has {images[0]} images and k has {images[1]}: they must be the same"
    if (cos is not None or bias is not None) and q.shape[-1] > WIDEST_PLACED:
        return f"head width is {q.shape[-1]}: with cos and sin, or a bias, 1 to {WIDEST_PLACED} is served"
    if (cos is None) != (sin is None) or (cos is not None and sin is not None and cos.shape != sin.shape):
        return "cos and sin belong together: both, of one shape, are served"
    for name, table in (("cos", cos), ("sin", sin)):
        if table is None:
            continue
        if table.dtype != torch.float32 or table.ndim != 2 or 2 * table.shape[1] != q.shape[-1]:
            return f"{name} is {table.dtype} {list(table.shape)}: float32 [P, {q.shape[-1]} / 2] is served"
    if bias is not None and (bias.dtype not in _TYPES or bias.ndim != 3 or bias.shape[0] != q.shape[-2]):
        return f"bias is {bias.dtype} {list(bias.shape)}: [{q.shape[-2]}, P, P'] in {_NAMES} is served"
    for name, tensor, places in (("q", q, q_places), ("k", k, k_places)):
        if places is not None and (places.dtype != torch.int32 or places.shape != tensor.shape[-3:-2]):
            return f"{name}_places is {places.dtype} {list(places.shape)}: int32, one a row, is served"
    return None


def _fake_forward(q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


def _fake_backward(
    d_out, q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale,
    cos=None, sin=None, bias=None, q_places=None, k_places=None, bias_gradient=False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_bias = bias.new_empty(bias.shape) if bias_gradient else q.new_empty(0)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), d_bias


masked_patch_attention = launch.register("masked_patch_attention_triton", _fake_forward)(run_forward)
masked_patch_attention_backward = launch.register("masked_patch_attention_backward_triton", _fake_backward)(
    run_backward
)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.q_longest, ctx.k_longest, ctx.scale = inputs[:10]
    ctx.save_for_backward(*tensors, *inputs[10:])


def _backward(ctx: Any, d_out: Tensor) -> tuple:
    *tensors, cos, sin, bias, q_places, k_places = ctx.saved_tensors
    wanted = bias is not None and ctx.needs_input_grad[12]
    dq, dk, dv, d_bias = masked_patch_attention_backward(
        d_out, *tensors, ctx.q_longest, ctx.k_longest, ctx.scale, cos, sin, bias, q_places, k_places, wanted
    )
    return dq, dk, dv, *(None,) * 9, d_bias if wanted else None, None, None


masked_patch_attention.register_autograd(_backward, setup_context=_save)
launch.register_autocast("masked_patch_attention_triton", tensors=3)


def _products(q, k, q_spans, k_spans, q_longest: int, k_longest: int) -> int:
    """Multiplications of one M x N x D product for all images and heads, from shapes alone."""
    images = q[0] if q_spans is None else q_spans[0]
    rows = q[1] if q_spans is None else q_longest
    keys = k[1] if k_spans is None else k_longest
    return images * q[-2] * rows * keys * q[-1]


@register_flop_formula(registered.masked_patch_attention_triton)
def forward_flops(
    q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale, *_, out_shape=None, **__
) -> int:
    """Two products, dense in the longest rows: counts are on the device and stay there."""
    return 4 * _products(q, k, q_spans, k_spans, q_longest, k_longest)


@register_flop_formula(registered.masked_patch_attention_backward_triton)
def backward_flops(
    d_out, q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale,
    cos=None, sin=None, bias=None, q_places=None, k_places=None, bias_gradient=False, *_, out_shape=None, **__
) -> int:  # fmt: skip
    """Five products, the logits again, dp, dv, dk and dq; for the bias the first two once more."""
    return (14 if bias_gradient else 10) * _products(q, k, q_spans, k_spans, q_longest, k_longest)


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of both launchers for each set of kernels that block shapes tell apart."""

    def both(q: Tensor, k: Tensor, v: Tensor, tables: tuple, longest: tuple[int, int], *placed) -> None:
        run_forward(q, k, v, *tables, *longest, 0.125, *placed)
        d_out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        run_backward(d_out, q, k, v, *tables, *longest, 0.125, *placed, placed[2] is not None)

    def case(name: str, keys: int, width: int, dtype: torch.dtype) -> tuple[str, Tensor]:
        qkv = torch.empty((8, keys, 3, 12, width), dtype=dtype, device="meta")
        return f"{name} D={width} {str(dtype).removeprefix('torch.')}", qkv

    def options(which: str, grid: int, width: int, dtype: torch.dtype) -> tuple:
        table = torch.empty((grid, width // 2), device="meta") if "rotary" in which else None
        bias = torch.empty((12, grid, grid), dtype=dtype, device="meta") if "bias" in which else None
        return table, table, bias, None, None

    none = (None,) * 4
    # Keys: one tile, both sizes of two phases, a long row. Widths: the three tiles, and one padded.
    half = product((49, 128, 197, 1024), (32, 64, 128), (torch.bfloat16,))
    padded = product((197, 1024), (80,), (torch.bfloat16,))
    single = product((49, 128, 197, 1024), (32, 64, 128), (torch.float32,))
    for keys, width, dtype in (*half, *padded, *single):
        name, qkv = case(f"N={keys}", keys, width, dtype)
        yield name, partial(both, *qkv.unbind(2), none, (keys, keys), *(None,) * 5)

    # With lse, at the width that leaves the fewest registers.
    for keys in (49, 128, 197, 1024):
        name, qkv = case(f"N={keys} lse", keys, 128, torch.bfloat16)
        yield name, partial(run_forward_with_lse, *qkv.unbind(2), 0.125)

    # Options, at the largest tile of each kernel.
    half = product(("rotary", "bias", "rotary bias"), (49, 128, 197, 1024), (32, 64), (torch.bfloat16,))
    single = product(("rotary bias",), (49, 128, 197, 1024), (32, 64), (torch.float32,))
    for which, keys, width, dtype in (*half, *single):
        name, qkv = case(f"N={keys} {which}", keys, width, dtype)
        placed = options(which, keys, width, dtype)
        yield name, partial(both, *qkv.unbind(2), none, (keys, keys), *placed)

    # Listed rows: a decoder whose 147 hidden patches look at 49 visible ones; long grids, mostly hidden.
    grids = (196, 147, 49), (1024, 1024, 256), (4096, 4096, 1024)
    spans = torch.empty((8, 2), dtype=torch.int32, device="meta")
    for (patches, rows, keys), dtype in product(grids, (torch.bfloat16, torch.float32)):
        name, qkv = case(f"{rows} to {keys} listed of {patches}", patches, 64, dtype)
        index = torch.empty((8, patches), dtype=torch.int32, device="meta")
        tables = (spans, index, spans, index)
        for which in ("", "rotary bias"):
            placed = options(which, patches, 64, dtype)
            yield f"{name} {which}", partial(both, *qkv.unbind(2), tables, (rows, keys), *placed)
