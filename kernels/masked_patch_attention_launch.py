"""Launchers of masked-patch attention: which kernels a call takes, in which shapes, with which arguments.

All take the arguments of the op in ``masked_patch_attention``, and check nothing.
"""

from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.masked_patch_attention_shapes import (
    ONE_TILE,
    WHOLE_ROW,
    Blocks,
    Case,
    backward_short_blocks,
    bias_blocks,
    forward_blocks,
    forward_row,
    forward_short_blocks,
    key_blocks,
    key_row,
    one_tile,
    power_of_two,
    query_blocks,
    row_at_once,
    two_phase_blocks,
)
from imagen_fast.kernels.masked_patch_attention_tuned import tuned

if launch.INSTALLED:
    from imagen_fast.kernels.masked_patch_attention_backward import attention_backward_two_phase
    from imagen_fast.kernels.masked_patch_attention_backward_long import (
        attention_backward_keys,
        attention_backward_queries,
    )
    from imagen_fast.kernels.masked_patch_attention_bias import attention_backward_bias
    from imagen_fast.kernels.masked_patch_attention_forward import attention_forward
    from imagen_fast.kernels.masked_patch_attention_short import (
        attention_backward_short,
        attention_forward_short,
    )

# Tiles of the bias's gradient above which its images are not split into groups: enough to fill any chip.
_BIAS_PROGRAMS = 1024
_NOWHERE = 2**30
_LEAST_SHARE = 2**-14  # a probability over it still fits float16


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Image, row and head strides; a packed tensor has no images to step over."""
    strides = {}
    for name, tensor in tensors.items():
        image, row, head = ((0,) if tensor.ndim == 3 else ()) + tensor.stride()[:-1]
        strides |= {f"{name}_image": image, f"{name}_row": row, f"{name}_head": head}
    return strides


def images_of(tensor: Tensor, spans: Tensor | None) -> int:
    return tensor.shape[0] if spans is None else spans.shape[0]


def _rows(tensor: Tensor) -> int:
    return 0 if tensor.ndim == 3 else tensor.shape[1]


def _longest(tensor: Tensor, spans: Tensor | None, longest: int) -> int:
    return _rows(tensor) if spans is None else longest


def _table(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.contiguous()


def _placement(
    q: Tensor, k: Tensor, v: Tensor, q_spans, q_index, k_spans, k_index, scale, cos, sin, bias,
    q_places, k_places,
) -> dict:  # fmt: skip
    """The arguments all kernels share: the tensors read, whose rows count, and where they lie."""
    return {
        "q": q,
        "k": k,
        "v": v,
        "q_spans": _table(q_spans),
        "q_index": _table(q_index),
        "q_places": _table(q_places),
        "k_spans": _table(k_spans),
        "k_index": _table(k_index),
        "k_places": _table(k_places),
        "cos": _table(cos),
        "sin": _table(sin),
        "bias": _table(bias),
        "bias_head": None if bias is None else bias.shape[1] * bias.shape[2],
        "bias_row": None if bias is None else bias.shape[2],
        "heads": q.shape[-2],
        "q_rows": _rows(q),
        "k_rows": _rows(k),
        "q_listed": 0 if q_index is None else q_index.shape[1],
        "k_listed": 0 if k_index is None else k_index.shape[1],
        "scale": scale,
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


def _case(q: Tensor, cos: Tensor | None, bias: Tensor | None) -> Case:
    placed = cos is not None or bias is not None
    return Case(int(q.shape[-1]), q.dtype, launch.capability(q.device), placed)


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
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    bias: Tensor | None = None,
    q_places: Tensor | None = None,
    k_places: Tensor | None = None,
) -> Tensor:
    q_longest, k_longest = _longest(q, q_spans, q_longest), _longest(k, k_spans, k_longest)
    out = _made_like(q, q_spans)
    arguments = _placement(
        q, k, v, q_spans, q_index, k_spans, k_index, scale, cos, sin, bias, q_places, k_places
    )
    arguments |= {"out": out}
    _launch_forward(arguments, images_of(q, q_spans), q_longest, k_longest)
    return out


def run_forward_with_lse(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Of whole images, with what FlashAttention keeps of a row: ln of the sum over it, [B, H, M] in fp32."""
    out = _made_like(q, None)
    lse = torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32, device=q.device)
    arguments = _placement(q, k, v, *(None,) * 4, scale, *(None,) * 5) | {"out": out}
    _launch_forward(arguments, q.shape[0], q.shape[1], k.shape[1], lse)
    return out, lse


def _launch_forward(
    arguments: dict[str, Any], images: int, q_longest: int, k_longest: int, lse: Tensor | None = None
) -> None:
    q = arguments["q"]
    case = _case(q, arguments["cos"], arguments["bias"])
    programs = images * q.shape[-2]
    # In fp32 multiplying takes the time: nothing is gained by loading ahead. With lse that loop would spill.
    if k_longest <= ONE_TILE and q.dtype != torch.float32 and lse is None:
        kernel = attention_forward_short
        shape = tuned(kernel.fn.__name__, k_longest, case, forward_short_blocks(case))
        blocks = _blocks(q_longest, shape.m)
        items = programs * blocks
        programs = torch.sym_min(items, shape.resident * launch.processors(q.device))
        _launch(kernel, programs, shape, arguments | {"blocks": blocks, "items": items})
        return
    shape = tuned(attention_forward.fn.__name__, k_longest, case, forward_blocks(k_longest, case))
    blocks = _blocks(q_longest, shape.m)
    arguments |= {"lse": lse, "blocks": blocks, "ROW": forward_row(k_longest, shape)}
    _launch(attention_forward, programs * blocks, shape, arguments)


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
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    bias: Tensor | None = None,
    q_places: Tensor | None = None,
    k_places: Tensor | None = None,
    bias_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, and the gradient of the bias, empty where it is not asked for."""
    if d_out.stride(-1) != 1:  # an expanded gradient, as sum() gives
        d_out = d_out.contiguous()
    q_longest, k_longest = _longest(q, q_spans, q_longest), _longest(k, k_spans, k_longest)
    case = _case(q, cos, bias)
    programs = images_of(q, q_spans) * q.shape[-2]
    dq, dk, dv = _made_like(q, q_spans), _made_like(k, k_spans), _made_like(v, k_spans)
    statistics = None
    short = one_tile(k_longest, case)
    if bias_gradient or not short:
        statistics = torch.empty((programs, 2, q_longest), dtype=torch.float32, device=q.device)
    shared = _placement(
        q, k, v, q_spans, q_index, k_spans, k_index, scale, cos, sin, bias, q_places, k_places
    )
    shared |= _strides(do=d_out) | {"do": d_out, "statistics": statistics, "q_longest": q_longest}
    shared["share"] = max(1 / power_of_two(k_longest), _LEAST_SHARE)

    if short:
        shape = tuned(attention_backward_short.fn.__name__, k_longest, case, backward_short_blocks(case))
        own = {"dq": dq, "dk": dk, "dv": dv}
        _launch(attention_backward_short, programs, shape, shared | own)
    elif k_longest <= WHOLE_ROW:
        derived = two_phase_blocks(k_longest, case)
        shape = tuned(attention_backward_two_phase.fn.__name__, k_longest, case, derived)
        own = {"dq": dq, "dk": dk, "dv": dv, "ROW": key_row(k_longest)}
        own |= {"AT_ONCE": row_at_once(k_longest, case)}
        _launch(attention_backward_two_phase, programs, shape, shared | own)
    else:
        shape = tuned(attention_backward_queries.fn.__name__, k_longest, case, query_blocks(case))
        blocks = _blocks(q_longest, shape.m)
        own = {"dq": dq, "blocks": blocks}
        _launch(attention_backward_queries, programs * blocks, shape, shared | own)
        shape = tuned(attention_backward_keys.fn.__name__, k_longest, case, key_blocks(case))
        blocks = _blocks(k_longest, shape.n)
        own = {"dk": dk, "dv": dv, "blocks": blocks}
        _launch(attention_backward_keys, programs * blocks, shape, shared | own)
    if not bias_gradient:
        return dq, dk, dv, q.new_empty(0)
    images = images_of(q, q_spans)
    shape = tuned(attention_backward_bias.fn.__name__, k_longest, case, bias_blocks(case))
    d_bias = _bias_gradient(bias, shared, images, q_longest, k_longest, shape)
    return dq, dk, dv, d_bias


def _bias_gradient(
    bias: Tensor, shared: dict[str, Any], images: int, q_longest: int, k_longest: int, shape: Blocks
) -> Tensor:
    heads, q_grid, k_grid = bias.shape
    q_blocks, k_blocks = _blocks(q_grid, shape.m), _blocks(k_grid, shape.n)
    tiles = heads * q_blocks * k_blocks
    groups = max(1, min(images, _BIAS_PROGRAMS // max(tiles, 1)))
    group = _blocks(images, groups)
    groups = _blocks(images, max(group, 1))
    partial = torch.empty((groups, heads, q_grid, k_grid), dtype=torch.float32, device=bias.device)
    own = {
        "partial": partial,
        "q_at": _listed_at(shared, "q", images, q_longest, q_grid),
        "k_at": _listed_at(shared, "k", images, k_longest, k_grid),
        "images": images,
        "group": group,
        "q_grid": q_grid,
        "k_grid": k_grid,
        "q_blocks": q_blocks,
        "k_blocks": k_blocks,
    }
    _launch(attention_backward_bias, groups * tiles, shape, shared | own)
    return partial.sum(0).to(bias.dtype)


def _listed_at(shared: dict[str, Any], side: str, images: int, longest: int, grid: int) -> Tensor | None:
    """[images, grid + 1] int32: which listed row of an image lies at each place; None where row i lies at i.

    The last column takes what is not listed.
    """
    spans, index, places = (shared[f"{side}_{name}"] for name in ("spans", "index", "places"))
    if spans is None and places is None:
        return None
    i = torch.arange(longest, dtype=torch.int32, device=shared["bias"].device)[None]
    place, exists = i.long(), i >= 0
    if spans is not None:
        exists = i < spans[:, 1:]
        place = torch.where(exists, spans[:, :1] + (i if index is None else index[:, :longest]), 0).long()
    if places is not None:
        place = places.long()[place] if places.shape[0] > 0 else place
    place = torch.where(exists, place, grid).expand(images, -1)
    at = torch.full((images, grid + 1), _NOWHERE, dtype=torch.int32, device=place.device)
    return at.scatter(1, place, i.expand(images, -1))
