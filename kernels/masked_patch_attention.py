"""Attention among patches when every image hides its own set: launchers and the op.

    out[i] = sum_j p[i, j] v[j],  p[i, :] = softmax over the image's listed keys of scale * q[i] . k[j]

and zero where no key is listed or the row is not asked for. Backward, with P recomputed:

    dv = p^T do,  ds = scale * p * (dp - rowsum(p * dp)),  dp = do v^T,  dq = ds k,  dk = ds^T q

q is ``[B, M, H, D]`` or packed ``[T, H, D]``; k and v ``[B, N, H, D]`` or packed; any strides with a
contiguous last dimension. ``spans`` (int32 ``[B, 2]``) holds start and count of each image's rows;
without it every image has all rows. ``index`` (int32 ``[B, L]``) lists the rows, ``start + index[b, i]``;
without it they are consecutive. No row may be listed twice. ``longest`` is an upper bound of the counts,
known on the host. Products accumulate in fp32, statistics are fp32, and probabilities are rounded to the
input's type before the second product, as in FlashAttention (Dao et al., 2022, arXiv:2205.14135).

The op checks nothing, as that would cost more than a small launch: callers ask ``supports`` first.
A row of up to 256 logits is whole in registers, and its backward one kernel; longer rows rescale block by
block and take two kernels backward.

Bytes: q, k, v and out once forward; q, k, v, do and the three gradients once backward, plus 8 bytes a
row past 64 keys. Operations: 4 M N D a head forward, 10 M N D backward, two of them to make the logits
again.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels import launch
from imagen_fast.kernels.masked_patch_attention_shapes import (
    Blocks,
    backward_design,
    forward_blocks,
    forward_row,
    key_blocks,
    key_row,
    one_tile_blocks,
    power_of_two,
    query_blocks,
    row_at_once,
    two_phase_blocks,
)

if launch.INSTALLED:
    from imagen_fast.kernels.masked_patch_attention_backward import (
        attention_backward_one_tile,
        attention_backward_two_phase,
    )
    from imagen_fast.kernels.masked_patch_attention_backward_long import (
        attention_backward_keys,
        attention_backward_queries,
    )
    from imagen_fast.kernels.masked_patch_attention_forward import attention_forward

LOG2_E = 1.4426950408889634


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Image, row and head strides; a packed tensor has no images to step over."""
    strides = {}
    for name, tensor in tensors.items():
        image, row, head = ((0,) if tensor.ndim == 3 else ()) + tensor.stride()[:-1]
        strides |= {f"{name}_image": image, f"{name}_row": row, f"{name}_head": head}
    return strides


def _images(tensor: Tensor, spans: Tensor | None) -> int:
    return tensor.shape[0] if spans is None else spans.shape[0]


def _rows(tensor: Tensor) -> int:
    return 0 if tensor.ndim == 3 else tensor.shape[1]


def _longest(tensor: Tensor, spans: Tensor | None, longest: int) -> int:
    return _rows(tensor) if spans is None else longest


def _table(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.contiguous()


def _placement(q: Tensor, k: Tensor, v: Tensor, q_spans, q_index, k_spans, k_index) -> dict:
    """The arguments all kernels share: the tensors read, whose rows count, and where they lie."""
    return {
        "q": q,
        "k": k,
        "v": v,
        "q_spans": _table(q_spans),
        "q_index": _table(q_index),
        "k_spans": _table(k_spans),
        "k_index": _table(k_index),
        "heads": q.shape[-2],
        "q_rows": _rows(q),
        "k_rows": _rows(k),
        "q_listed": 0 if q_index is None else q_index.shape[1],
        "k_listed": 0 if k_index is None else k_index.shape[1],
        "D": int(q.shape[-1]),  # never symbolic: it is compiled into the kernel
        "BLOCK_D": power_of_two(q.shape[-1]),
        **_strides(q=q, k=k, v=v),
    }


def _made_like(tensor: Tensor, spans: Tensor | None) -> Tensor:
    """A contiguous result. With a table some rows may belong to no image: those are zero."""
    make = torch.empty if spans is None else torch.zeros
    return make(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _blocks(length: int, block: int) -> int:
    return (length + block - 1) // block


def _launch(kernel: Any, programs: int, shape: Blocks, arguments: dict[str, Any]) -> None:
    arguments = arguments | {"BLOCK_M": shape.m, "BLOCK_N": shape.n}
    launch.launch(kernel, programs, arguments, num_warps=shape.warps, num_stages=shape.stages)


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None,
    q_index: Tensor | None,
    k_spans: Tensor | None,
    k_index: Tensor | None,
    q_longest: int,
    k_longest: int,
    scale: float,
) -> Tensor:
    q_longest, k_longest = _longest(q, q_spans, q_longest), _longest(k, k_spans, k_longest)
    shape = forward_blocks(k_longest, q.shape[-1], q.dtype, launch.capability(q.device))
    blocks = _blocks(q_longest, shape.m)
    out = _made_like(q, q_spans)
    arguments = _placement(q, k, v, q_spans, q_index, k_spans, k_index)
    arguments |= {
        "out": out,
        "blocks": blocks,
        "scale_log2": scale * LOG2_E,
        "ROW": forward_row(k_longest, shape),
    }
    _launch(attention_forward, _images(q, q_spans) * q.shape[-2] * blocks, shape, arguments)
    return out


def run_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None,
    q_index: Tensor | None,
    k_spans: Tensor | None,
    k_index: Tensor | None,
    q_longest: int,
    k_longest: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if d_out.stride(-1) != 1:  # an expanded gradient, as sum() gives
        d_out = d_out.contiguous()
    q_longest, k_longest = _longest(q, q_spans, q_longest), _longest(k, k_spans, k_longest)
    width, dtype, capability = q.shape[-1], q.dtype, launch.capability(q.device)
    design = backward_design(k_longest)
    programs = _images(q, q_spans) * q.shape[-2]
    dq, dk, dv = _made_like(q, q_spans), _made_like(k, k_spans), _made_like(v, k_spans)
    shared = _placement(q, k, v, q_spans, q_index, k_spans, k_index) | _strides(do=d_out)
    shared |= {"do": d_out, "scale": scale, "scale_log2": scale * LOG2_E}

    if design == "one_tile":
        shape = one_tile_blocks(width, dtype, capability)
        _launch(attention_backward_one_tile, programs, shape, shared | {"dq": dq, "dk": dk, "dv": dv})
        return dq, dk, dv

    statistics = torch.empty((programs, 2, q_longest), dtype=torch.float32, device=q.device)
    shared |= {"statistics": statistics, "q_longest": q_longest}
    if design == "two_phase":
        at_once = row_at_once(k_longest, width, dtype, capability)
        shape = two_phase_blocks(k_longest, width, dtype, capability)
        own = {"dq": dq, "dk": dk, "dv": dv, "ROW": key_row(k_longest), "AT_ONCE": at_once}
        _launch(attention_backward_two_phase, programs, shape, shared | own)
        return dq, dk, dv

    shape = query_blocks(width, dtype, capability)
    blocks = _blocks(q_longest, shape.m)
    own = {"dq": dq, "blocks": blocks}
    _launch(attention_backward_queries, programs * blocks, shape, shared | own)
    shape = key_blocks(width, dtype)
    blocks = _blocks(k_longest, shape.n)
    own = {"dk": dk, "dv": dv, "blocks": blocks}
    _launch(attention_backward_keys, programs * blocks, shape, shared | own)
    return dq, dk, dv


def supports(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_spans: Tensor | None = None,
    q_index: Tensor | None = None,
    k_spans: Tensor | None = None,
    k_index: Tensor | None = None,
) -> str | None:
    """Why the kernels cannot serve these tensors, or None. Reads shapes only, never values."""
    if reason := launch.unavailable(q, k, v, q_spans, q_index, k_spans, k_index):
        return reason
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}: all float16, bfloat16 or float32 is served"
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
    images = _images(q, q_spans), _images(k, k_spans)
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
    return None


def _fake_forward(q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


def _fake_backward(d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


masked_patch_attention = launch.register("masked_patch_attention_triton", _fake_forward)(run_forward)
masked_patch_attention_backward = launch.register("masked_patch_attention_backward_triton", _fake_backward)(
    run_backward
)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.q_longest, ctx.k_longest, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_out: Tensor) -> tuple:
    gradients = masked_patch_attention_backward(
        d_out, *ctx.saved_tensors, ctx.q_longest, ctx.k_longest, ctx.scale
    )
    return *gradients, None, None, None, None, None, None, None


masked_patch_attention.register_autograd(_backward, setup_context=_save)
launch.register_autocast("masked_patch_attention_triton", tensors=3)


def _products(q, k, q_spans, k_spans, q_longest: int, k_longest: int) -> int:
    """Multiplications of one M x N x D product for all images and heads, from shapes alone."""
    images = q[0] if q_spans is None else q_spans[0]
    rows = q[1] if q_spans is None else q_longest
    keys = k[1] if k_spans is None else k_longest
    return images * q[-2] * rows * keys * q[-1]


@register_flop_formula(torch.ops.imagen_fast.masked_patch_attention_triton)
def forward_flops(
    q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale, *_, out_shape=None, **__
) -> int:
    """Two products, dense in the longest rows: counts are on the device and stay there."""
    return 4 * _products(q, k, q_spans, k_spans, q_longest, k_longest)


@register_flop_formula(torch.ops.imagen_fast.masked_patch_attention_backward_triton)
def backward_flops(
    d_out, q, k, v, q_spans, q_index, k_spans, k_index, q_longest, k_longest, scale, *_, out_shape=None, **__
) -> int:
    """Five products: the logits again, dp, dv, dk and dq."""
    return 10 * _products(q, k, q_spans, k_spans, q_longest, k_longest)


def aot_launches() -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a call of both launchers for each set of kernels that block shapes tell apart."""

    def both(q: Tensor, k: Tensor, v: Tensor, tables: tuple, longest: tuple[int, int]) -> None:
        run_forward(q, k, v, *tables, *longest, 0.125)
        run_backward(torch.empty(q.shape, dtype=q.dtype, device=q.device), q, k, v, *tables, *longest, 0.125)

    # Keys: one tile, both sizes of two phases, a long row. Widths: the three tiles, and one padded.
    half = product((49, 128, 197, 1024), (32, 64, 128), (torch.bfloat16,))
    padded = product((197, 1024), (80,), (torch.bfloat16,))
    single = product((49, 128, 197, 1024), (32, 64, 128), (torch.float32,))
    for keys, width, dtype in (*half, *padded, *single):
        qkv = torch.empty((8, keys, 3, 12, width), dtype=dtype, device="meta")
        case = f"N={keys} D={width} {str(dtype).removeprefix('torch.')}"
        yield case, partial(both, *qkv.unbind(2), (None,) * 4, (keys, keys))

    # Listed rows: a decoder whose 147 hidden patches look at 49 visible ones; long grids, mostly hidden.
    grids = (196, 147, 49), (1024, 1024, 256), (4096, 4096, 1024)
    for (patches, rows, keys), dtype in product(grids, (torch.bfloat16, torch.float32)):
        qkv = torch.empty((8, patches, 3, 12, 64), dtype=dtype, device="meta")
        spans = torch.empty((8, 2), dtype=torch.int32, device="meta")
        index = torch.empty((8, patches), dtype=torch.int32, device="meta")
        case = f"{rows} to {keys} listed of {patches} D=64 {str(dtype).removeprefix('torch.')}"
        yield case, partial(both, *qkv.unbind(2), (spans, index, spans, index), (rows, keys))
