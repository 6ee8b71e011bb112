"""timm's transformers: attention modules, whose calls of PyTorch's attention ours serves."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import activations as timm_activations
from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagen_fast.integrations.accelerate import activations, patches
from imagen_fast.integrations.accelerate.swaps import ByClass, Swap, Trial, device_of
from imagen_fast.integrations.accelerate.trial import Work, images_of
from imagen_fast.integrations.sdpa import plain, scaled_dot_product_attention
from imagen_fast.ops.gelu import gelu, quick_gelu

# By name of the module: in older ones they are made there, in newer ones only imported.
_vit: Any = vision_transformer
_eva: Any = eva


class _Serving(TorchFunctionMode):
    """In its block a call of PyTorch's `scaled_dot_product_attention` goes to ours."""

    def __init__(self, types: frozenset[torch.dtype]) -> None:
        super().__init__()
        self.types = types

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.scaled_dot_product_attention:
            return scaled_dot_product_attention(*args, types=self.types, **kwargs)
        return function(*args, **kwargs)


class _Served:
    # Of one that was undone while somebody held its forward.
    imagen_fast_types = frozenset[torch.dtype]()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not plain(x):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        with _Serving(self.imagen_fast_types):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]


class Attention(_Served, _vit.Attention):
    pass


class ParallelScalingBlock(_Served, vision_transformer.ParallelScalingBlock):
    pass


class EvaAttention(_Served, eva.EvaAttention):
    pass


class BeitAttention(_Served, beit.Attention):
    pass


class GELU(activations.Served, timm_activations.GELU):
    function = staticmethod(gelu)


class QuickGELU(activations.Served, timm_activations.QuickGELU):
    function = staticmethod(quick_gelu)


def _why_not(module: Any) -> str | None:
    return None if module.fused_attn else "its fused_attn is off"


def _beits_why_not(module: Any) -> str | None:
    if module.qkv.weight.device.type == "cpu" and module.relative_position_bias_table is not None:
        return "ours has no fast way for a bias of relative positions on the CPU"
    return _why_not(module)


def _dropped(module: Any) -> str | None:
    rate = module.attn_drop.p
    return f"not in training, where it drops probabilities (attn_drop={rate:g})" if rate else None


def _trial(module: Any, model: nn.Module) -> Trial:
    heads = module.num_heads
    width = round(module.scale**-2)
    tokens = _tokens(model)

    def work(dtype: torch.dtype, autocast: bool) -> Work:
        # Views into a fused projection.
        device = device_of(module)
        qkv = torch.randn(
            images_of(tokens), tokens, 3, heads, width, dtype=dtype, device=device, requires_grad=True
        )

        def through(function: Any) -> Any:
            return lambda qkv: function(*qkv.permute(2, 0, 3, 1, 4).unbind(0)).transpose(1, 2).flatten(-2)

        theirs = nn.functional.scaled_dot_product_attention
        return Work(through(theirs), through(scaled_dot_product_attention), (qkv,))

    return Trial((heads, width, tokens), work)


def _tokens(model: nn.Module) -> int:
    """Of its first embedding, and a class token; an image of 224 in patches of 16 where none tells."""
    embeddings = (getattr(module, "patch_embed", None) for module in model.modules())
    counts = (getattr(embedding, "num_patches", None) for embedding in embeddings)
    return next((count for count in counts if count), 196) + 1


SWAPS: list[Swap] = [
    *(
        ByClass("attention", original, ours, why_not, _trial, noted=_dropped)
        for original, ours, why_not in (
            (_vit.Attention, Attention, _why_not),
            (vision_transformer.ParallelScalingBlock, ParallelScalingBlock, _why_not),
            (eva.EvaAttention, EvaAttention, _why_not),
            (beit.Attention, BeitAttention, _beits_why_not),
        )
    ),
    patches.SWAP,
    *activations.swaps(_tokens, {timm_activations.GELU: GELU, timm_activations.QuickGELU: QuickGELU}),
]

# In timm since 1.0.20.
if hasattr(_eva, "AttentionRope"):

    class AttentionRope(_Served, _eva.AttentionRope):
        pass

    SWAPS.append(ByClass("attention", _eva.AttentionRope, AttentionRope, _why_not, _trial, noted=_dropped))
