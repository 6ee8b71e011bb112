"""Our attention under the name that transformers' models choose theirs by: `attn_implementation="imagen_fast"`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from imagen_fast.integrations.sdpa import TYPES, scaled_dot_product_attention

NAME = "imagen_fast"
# What `sdpa` takes beside, or refuses.
_THEIRS = ("softcap", "position_bias", "sliding_window")


def register_attention() -> None:
    """Make `attn_implementation="imagen_fast"` known, in `from_pretrained` and `set_attn_implementation`.

    What ours does not serve goes to PyTorch's attention, as `sdpa` sends it.
    """
    AttentionInterface.register(NAME, attention)
    # Masks are theirs: boolean, or none where all is seen.
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: query, key and value [B, H, N, D]; the output [B, M, H, D], and no probabilities."""
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    grouped = key.shape[1] != query.shape[1]
    if causal or grouped or any(others.get(name) is not None for name in _THEIRS):
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            dropout=dropout,
            is_causal=is_causal,
            **others,
        )
    out = scaled_dot_product_attention(
        query,
        key,
        value,
        attention_mask,
        dropout,
        scale=scaling,
        types=getattr(module, "imagen_fast_types", TYPES),
    )
    return out.transpose(1, 2).contiguous(), None
