"""Causal pixel attention on the CPU, as an operator of PyTorch.

Our native kernel where it pays, on tiles of the grid: those that no pixel of a tile may see are never
touched. For the rest PyTorch's flash kernel, with the mask that the window stands for.
"""

from __future__ import annotations

import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from imagen_fast import native
from imagen_fast.operators import NAMESPACE, registered
from imagen_fast.ops.contexts import Window


def refusal(q: Tensor) -> str | None:
    if q.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {q.device}"
    return None


# Pixels of a whole raster in float32 from which on PyTorch's kernel, which goes over its keys in pieces that
# stay in the caches, is the faster one (measured: as fast at 2,304 pixels, 1.15 times at 4,096).
LONG = 3072


def plan(dtype: torch.dtype, width: int, window: Window) -> str:
    """'native' or 'flash': which of the two ways a call goes."""
    # A bf16 pair is the smallest thing that the native kernel reads.
    if not native.attention_pays(dtype) or width % 2:
        return "flash"
    long = window.height * window.width >= LONG
    return "flash" if dtype == torch.float32 and long and _whole_raster(window) else "native"


def _whole_raster(window: Window) -> bool:
    """Whether each pixel sees all before it and none after it: a triangle, which PyTorch knows."""
    return window.all_before and window.prefix == 0


def seen_pairs(window: Window) -> int:
    """How many pairs of a query and a key that it sees a grid has."""
    height, width, above, left, right, prefix = window
    along = sum(min(width - 1, k + right) - max(0, k - left) + 1 for k in range(width))  # in a row above
    same = sum(k - max(0, k - left) + 1 for k in range(width))
    pairs = height * same + sum(min(j, above) for j in range(height)) * along
    for n in range(prefix):  # seen by all: those that did not see it join
        y, x = divmod(n, width)
        below = min(height - 1 - y, above) * (min(width - 1, x + left) - max(0, x - right) + 1)
        pairs += height * width - below - (min(width - 1, x + left) - x + 1)
    return pairs


def _mask(window: Window, dtype: torch.dtype) -> tuple[bool, Tensor | None]:
    """The flash kernel's `is_causal` and `attn_mask` [1, 1, N, N]."""
    if _whole_raster(window):
        return True, None
    hidden = ~window.visible()
    return False, torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))[None, None]


@library.custom_op(f"{NAMESPACE}::causal_pixel_attention_cpu", mutates_args=(), device_types="cpu")
def _attention(
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
    """The output, and what the backward needs: statistics [B, H, 2, N], or logarithms of sums [B, H, N]."""
    window = Window(height, width, above, left, right, prefix)
    if plan(q.dtype, q.shape[-1], window) == "native":
        out = torch.empty(q.shape, dtype=q.dtype)
        kept = _kept(q, window)
        native.attention_on_grid(q, k, v, window, scale).forward(out, kept)
        return out, kept
    if q.numel() == 0:
        return torch.empty(q.shape, dtype=q.dtype), _kept(q, window)
    causal, mask = _mask(window, q.dtype)
    out, kept = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x.transpose(1, 2) for x in (q, k, v)), 0.0, causal, attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).contiguous(), kept.contiguous()


def _kept(q: Tensor, window: Window) -> Tensor:
    images, tokens, heads, width = q.shape
    if plan(q.dtype, width, window) == "native":
        return q.new_empty(images, heads, 2, tokens, dtype=torch.float32)
    return q.new_empty(images, heads, tokens, dtype=torch.promote_types(q.dtype, torch.float32))


@_attention.register_fake
def _(q, k, v, *numbers):
    return q.new_empty(q.shape), _kept(q, Window(*numbers[:6]))


@library.custom_op(f"{NAMESPACE}::causal_pixel_attention_backward_cpu", mutates_args=(), device_types="cpu")
def _attention_backward(
    d_out: Tensor,
    out: Tensor,
    kept: Tensor,
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
) -> tuple[Tensor, Tensor, Tensor]:
    window = Window(height, width, above, left, right, prefix)
    if plan(q.dtype, q.shape[-1], window) == "native" or q.numel() == 0:
        d_q, d_k, d_v = (torch.empty(q.shape, dtype=q.dtype) for _ in range(3))
        if q.numel():
            native.attention_on_grid(q, k, v, window, scale).backward(d_out, out, kept, (d_q, d_k, d_v))
        return d_q, d_k, d_v
    causal, mask = _mask(window, q.dtype)
    gh, qh, kh, vh, oh = (x.transpose(1, 2) for x in (d_out, q, k, v, out))
    d_q, d_k, d_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gh, qh, kh, vh, oh, kept, 0.0, causal, attn_mask=mask, scale=scale
    )
    return tuple(x.transpose(1, 2).contiguous() for x in (d_q, d_k, d_v))


@_attention_backward.register_fake
def _(d_out, out, kept, q, k, v, *numbers):
    return tuple(q.new_empty(q.shape) for _ in range(3))


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    q, k, v, *ctx.numbers = inputs
    ctx.save_for_backward(*output, q, k, v)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_out, _):
    if d_out is None:
        return (None,) * 10
    return *_attention_backward(d_out, *ctx.saved_tensors, *ctx.numbers), *(None,) * 7


_attention.register_autograd(_differentiate, setup_context=_save)


def causal_pixel_attention(q: Tensor, k: Tensor, v: Tensor, *numbers) -> Tensor:
    return _attention(q, k, v, *numbers)[0]


def _flops(q_shape, products: int, *window: int) -> int:
    images, _, heads, width = q_shape
    return 2 * products * images * heads * width * seen_pairs(Window(*window))


@register_flop_formula(registered.causal_pixel_attention_cpu)
def _(q, k, v, height, width, above, left, right, prefix, scale, *args, out_shape=None, **kwargs):
    return _flops(q, 2, height, width, above, left, right, prefix)


@register_flop_formula(registered.causal_pixel_attention_backward_cpu)
def _(
    d_out,
    out,
    kept,
    q,
    k,
    v,
    height,
    width,
    above,
    left,
    right,
    prefix,
    scale,
    *args,
    out_shape=None,
    **kwargs,
):
    # With the scores made again, as PyTorch counts its own kernels.
    return _flops(q, 5, height, width, above, left, right, prefix)
