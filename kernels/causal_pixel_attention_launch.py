"""Launchers of causal pixel attention: which tiles a call takes, with which arguments. They check nothing."""

from typing import Any

import torch
from torch import Tensor

from imagen_fast.kernels import launch
from imagen_fast.kernels.causal_pixel_attention_shapes import forward_blocks, key_blocks, query_blocks, sides
from imagen_fast.kernels.causal_pixel_window import Window, simplest
from imagen_fast.kernels.masked_patch_attention_launch import _blocks, _strides
from imagen_fast.kernels.masked_patch_attention_shapes import Blocks, Case, power_of_two

if launch.INSTALLED:
    from imagen_fast.kernels.causal_pixel_attention_backward import (
        causal_attention_backward_keys,
        causal_attention_backward_queries,
    )
    from imagen_fast.kernels.causal_pixel_attention_forward import causal_attention_forward


def leading_tiles(window: Window, tall: int, wide: int) -> int:
    """How many tiles hold a pixel of the prefix: they are the first, in the tiles' raster order."""
    lines, rest = divmod(window.prefix, window.width) if window.prefix > 0 else (0, 0)
    in_line = _blocks(rest, wide) if lines % tall == 0 else 0
    return _blocks(lines, tall) * _blocks(window.width, wide) + in_line


def _placement(q: Tensor, k: Tensor, v: Tensor, window: Window, scale: float) -> dict[str, Any]:
    """The arguments all kernels share."""
    return {
        "q": q,
        "k": k,
        "v": v,
        "heads": q.shape[2],
        **window._asdict(),
        "scale": scale,
        "D": int(q.shape[-1]),  # never symbolic: it is compiled into the kernel
        "BLOCK_D": power_of_two(q.shape[-1]),
        "FLAT": bool(window.height == 1),
        "LIMITED": bool(window.limited),
        "PREFIX": bool(window.prefix > 0),
        **_strides(q=q, k=k, v=v),
    }


def _launch(kernel: Any, shape: Blocks, window: Window, arguments: dict[str, Any], of_keys: bool) -> None:
    """A program for every tile of queries, or of keys, of every head."""
    (q_tall, q_wide), (k_tall, k_wide) = sides(window, shape.m), sides(window, shape.n)
    tall, wide = (k_tall, k_wide) if of_keys else (q_tall, q_wide)
    across = _blocks(window.width, wide)
    blocks = _blocks(window.height, tall) * across
    arguments = arguments | {"blocks": blocks, "across": across}
    arguments |= {"Q_H": q_tall, "Q_W": q_wide, "K_H": k_tall, "K_W": k_wide}
    if not of_keys:
        arguments["leading"] = leading_tiles(window, k_tall, k_wide)
    programs = arguments["q"].shape[0] * arguments["heads"] * blocks
    launch.launch(kernel, programs, arguments, num_warps=shape.warps, num_stages=shape.stages)


def _empty(q: Tensor) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def _of_rows(q: Tensor, *more: int) -> Tensor:
    """A number a row, or more of them."""
    size = (q.shape[0], q.shape[2], *more, q.shape[1])
    return torch.empty(size, dtype=torch.float32, device=q.device)


def run_forward(
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
) -> tuple[Tensor, Tensor]:
    """The output, and of every row the largest logit and the sum over it, [B, H, 2, N] in fp32."""
    window = simplest(height, width, above, left, right, prefix)
    case = Case(int(q.shape[-1]), q.dtype, launch.capability(q.device))
    out, statistics = _empty(q), _of_rows(q, 2)
    arguments = _placement(q, k, v, window, scale) | {"out": out, "statistics": statistics}
    _launch(causal_attention_forward, forward_blocks(window, case), window, arguments, of_keys=False)
    return out, statistics


def run_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    statistics: Tensor,
    height: int,
    width: int,
    above: int,
    left: int,
    right: int,
    prefix: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if d_out.stride(-1) != 1:  # an expanded gradient, as sum() gives
        d_out = d_out.contiguous()
    window = simplest(height, width, above, left, right, prefix)
    case = Case(int(q.shape[-1]), q.dtype, launch.capability(q.device))
    if window.blind:
        # Exact zeros, where out and dp would cancel but for the order of their sums.
        return torch.zeros_like(_empty(q)), torch.zeros_like(_empty(k)), _empty(v).copy_(d_out)
    dq, dk, dv, delta = _empty(q), _empty(k), _empty(v), _of_rows(q)
    shared = _placement(q, k, v, window, scale) | _strides(do=d_out)
    shared |= {"do": d_out, "statistics": statistics, "delta": delta}
    own = {"out": out, "dq": dq}
    _launch(causal_attention_backward_queries, query_blocks(case), window, shared | own, of_keys=False)
    own = {"dk": dk, "dv": dv}
    _launch(causal_attention_backward_keys, key_blocks(case), window, shared | own, of_keys=True)
    return dq, dk, dv
